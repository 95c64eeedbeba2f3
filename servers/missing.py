"""The error for what a machine lacks."""

from __future__ import annotations


class Missing(RuntimeError):
    """A program, a library or a privilege that this machine lacks.

    Its text says what is missing and how to get it. Tests that meet it are skipped with that text, and fail
    where the environment variable ``CI`` is set (see tests/conftest.py).
    """
