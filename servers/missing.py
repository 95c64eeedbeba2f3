"""The error for what a machine lacks."""

from __future__ import annotations


class Missing(RuntimeError):
    """This machine lacks a program, a library or a privilege.

    Its text says what is missing and how to get it. Tests that meet it are skipped with that text, and fail
    where the environment variable ``CI`` is set (see tests/conftest.py).
    """
