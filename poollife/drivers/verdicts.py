"""Verdicts: the meanings of a driver's errors for the pool, whatever the dialect."""

from __future__ import annotations

from enum import Flag, auto


class Verdict(Flag):
    """Meaning of an error for the pool: LOST and READ_ONLY in a session, the others at its opening."""

    NONE = 0
    #: The session has ended, or its server serves no statements at the moment. The pool pings the other
    #: sessions before it lends them.
    LOST = auto()
    #: The server is read-only. All sessions that were opened up to now are replaced.
    READ_ONLY = auto()
    #: The server rejects the user or the password of a session.
    REFUSED = auto()
    #: This session could not be opened; the next one may be.
    CUT_OFF = auto()
    #: No session can be opened: nothing listens, or the name of the host is not known.
    UNREACHABLE = auto()
    #: As many sessions are open as the server, or the user's limits, allow. One that ends makes room.
    FULL = auto()


#: The session has ended, or could not be opened; the next one may be.
OVER = Verdict.LOST | Verdict.CUT_OFF
