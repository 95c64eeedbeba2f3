"""Types of the options of the commands."""

from __future__ import annotations

from argparse import ArgumentTypeError

#: The largest value: what is larger is a slip, and might keep a command busy for ever.
MOST = 1_000_000


def number(text: str) -> int:
    """Return the value of an option that is a whole number from 1 to ``MOST``."""
    # Only so many digits, because int() refuses very long texts with an error of its own.
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= MOST:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 to {MOST:,}")
    return int(text)


def amount(text: str) -> float:
    """Return the value of an option that is a number above 0, such as seconds, up to ``MOST``."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MOST:
        raise ArgumentTypeError(f"{text!r} is no number above 0, up to {MOST:,}")
    return value
