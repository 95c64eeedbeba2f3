"""Failing on purpose, without filling the log with it."""

from __future__ import annotations

import logging


class OnPurpose(Exception):
    """What the failing view raises."""


class Surprises(logging.Filter):
    """Let through whatever was not raised on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at the exception, if the record has one."""
        return not (record.exc_info and isinstance(record.exc_info[1], OnPurpose))
