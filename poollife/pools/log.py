"""Log records that are written later, when their thread holds nothing that others wait for.

A handler of the user's logs may query. In the middle of a checkout it would wait for the slot that the
checkout around it has; in the middle of a return, for the slot that is being returned. So a record is noted
there, and written as soon as the slot is returned, or its borrower can use it.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress

from poollife.pools.tickets import current

logger = logging.getLogger("poollife")

#: Level, text, arguments and attributes of each record, the oldest first. For the whole process: the records
#: of a thread that an asynchronous exception has ended are written by the next thread.
pending: deque[tuple[int, str, tuple[object, ...], dict[str, object]]] = deque()


def about(alias: str | None, session: int | None = None) -> dict[str, object]:
    """Return the ``extra`` of a record: a formatter can rely on both attributes.

    :param alias: the key of ``DATABASES``; None: the record is about no single pool.
    :param session: the server's number of the session; None: the record is about no single session.
    """
    return {"alias": alias, "session": session}


def note(level: int, text: str, *args: object, alias: str | None = None, session: int | None = None) -> None:
    """Note a record, for ``write()``.

    :param level: as for ``logging``.
    :param text: the message, with a placeholder for each argument.
    :param alias: as for ``about()``, and so is ``session``.
    """
    pending.append((level, text, args, about(alias, session)))


def write() -> None:
    """Write the records that were noted; not now, if this thread has a slot in the middle of a checkout."""
    ticket = current.checkout
    while ticket:
        if ticket.served:
            return
        ticket = ticket.outer
    # Another thread, or a log handler that queries, may take the last record.
    with suppress(IndexError):
        while pending:
            level, text, args, extra = pending.popleft()
            logger.log(level, text, *args, extra=extra)
