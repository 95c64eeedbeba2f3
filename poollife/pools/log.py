"""Log records that have to wait until their thread keeps nothing from others.

A handler of the user's logs may query. In the middle of a checkout it would wait for the slot that the
checkout around it has; in the middle of a return, for the one that is on its way back. So what is noticed
there is noted, and written as soon as the slot is back or its borrower can use it.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress

from poollife.pools.tickets import current

logger = logging.getLogger("poollife")

#: Level, text and arguments, the oldest first. Of the whole process, so what is noted by a thread that is
#: struck by something from outside is written by the next.
pending: deque[tuple[int, str, tuple[object, ...]]] = deque()


def note(level: int, text: str, *args: object) -> None:
    """Have this written later.

    :param level: as for ``logging``.
    """
    pending.append((level, text, args))


def write() -> None:
    """Write what was noted; later, if this thread has a slot in the middle of a checkout."""
    ticket = current.checkout
    while ticket:
        if ticket.served:
            return
        ticket = ticket.outer
    # Another thread, or a handler that queries, may take the last one.
    with suppress(IndexError):
        while pending:
            level, text, args = pending.popleft()
            logger.log(level, text, *args)
