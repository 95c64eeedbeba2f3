"""The failure on purpose, and a filter that keeps it out of the log."""

from __future__ import annotations

import logging


class OnPurpose(Exception):
    """The error of the failing view."""


class Surprises(logging.Filter):
    """A filter for log records without an error that was raised on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record has no such error."""
        return not (record.exc_info and isinstance(record.exc_info[1], OnPurpose))
