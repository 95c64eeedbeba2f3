"""SQLAlchemy's private names; fair_queue.py has those that a pool class overrides, conf.py those that tell
what a pool class does.

tests/compatibility/test_private_names.py pins all of them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry


def detach_finalizer(handle: Any) -> None:
    """Keep a checked-out handle from acting when it is dropped or the interpreter exits. A record never does.

    Its finalizer sends a ROLLBACK, in a child on the parent's socket. It looks first whether its record is
    still checked out, which ``fairy_ref`` tells in 2.0 and 2.1.
    """
    if getattr(handle, "_connection_record", None) is not None:
        forget_handle(handle._connection_record)


def forget_handle(record: ConnectionPoolEntry) -> None:
    """The same for a handle that only its record is known of."""
    checked_out: Any = record
    checked_out.fairy_ref = None
