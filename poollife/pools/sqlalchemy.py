"""SQLAlchemy's private names.

fair_queue.py has the names that a pool class overrides, conf.py the names that tell what a pool class does.
tests/compatibility/test_private_names.py pins all of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry


def detach_finalizer(handle: Any) -> None:
    """Keep a checked-out handle from acting when it is dropped, or when the interpreter exits.

    The finalizer of a ``_ConnectionFairy`` sends a ROLLBACK, in a child on the parent's socket. It first
    looks whether its record is still checked out, which ``fairy_ref`` tells in SQLAlchemy 2.0 and 2.1. A
    record never acts by itself.

    :param handle: a ``_ConnectionFairy``, or a record.
    """
    if getattr(handle, "_connection_record", None) is not None:
        forget_handle(handle._connection_record)


def forget_handle(record: ConnectionPoolEntry) -> None:
    """Keep the handle of a record from acting, as ``detach_finalizer()`` does."""
    checked_out: Any = record
    checked_out.fairy_ref = None
