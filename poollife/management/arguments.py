"""Types of the options of the commands."""

from __future__ import annotations

from argparse import ArgumentTypeError


def number(text: str) -> int:
    """Return the value of an option that is a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def amount(text: str) -> float:
    """Return the value of an option that is a number above 0, such as seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return value
