"""Errors of Oracle and of python-oracledb that concern a session or its server.

All other errors concern one statement: its session goes on.

Sources: Oracle's "Database Error Messages", and the tables in ``oracledb/errors.py``. Apart from the driver's
own errors none was seen from an Oracle server: the tests have a stand-in send them.
"""

from __future__ import annotations

import re

from poollife.drivers.verdicts import OVER, Verdict

#: The verdicts on errors of the driver's own, by their full codes.
DRIVERS: dict[str, Verdict] = {
    # "not connected to database": after an error by which the session was lost.
    "DPY-1001": Verdict.LOST,
    # "the database or network closed the connection".
    "DPY-4011": OVER,
    # The listener knows no such service or SID, which is so while the database starts: 12514 and 12505.
    "DPY-6001": Verdict.UNREACHABLE,
    "DPY-6003": Verdict.UNREACHABLE,
}
#: The verdicts on errors of the server or its listener, by number.
SERVERS: dict[int, Verdict] = {
    # The session has ended. Newer drivers report these as DPY-4011, as their table says.
    **dict.fromkeys(
        [22, 28, 31, 45, 378, 602, 603, 609, 1012, 1041, 1043, 1089, 1092, 2396, 3113, 3114], OVER
    ),
    **dict.fromkeys([3122, 3135, 12153, 12537, 12547, 12570, 12583, 27146, 28511, 56600], OVER),
    # Limits: sessions, processes, sessions of a user's profile, and the listener's "no handler is free".
    **dict.fromkeys([18, 20, 2391, 12516, 12519, 12520], Verdict.FULL),
    # The user's password is missing or wrong, has expired, or the account is locked or may not log in.
    **dict.fromkeys([1005, 1017, 1045, 28000, 28001, 28002], Verdict.REFUSED),
    # Starting, stopping, not open, or restricted.
    **dict.fromkeys([1033, 1034, 1035, 1090, 12526, 12527, 12528, 27101], Verdict.LOST | Verdict.UNREACHABLE),
    # A name that is not known, nothing that listens, or no answer in time.
    **dict.fromkeys([12154, 12170, 12541, 12543, 12545], Verdict.UNREACHABLE),
    # Open for read-only access: a standby after a switchover.
    16000: Verdict.READ_ONLY,
}
_SIMILAR = re.compile(r"\(Similar to ORA-(\d+)\)")


def verdict_on(error: BaseException) -> Verdict:
    """Return the meaning of one of the driver's errors in a session, for this session and its server.

    :param error: the exception.
    """
    found = _info(error)
    if (verdict := DRIVERS.get(getattr(found, "full_code", ""))) is not None:
        return verdict
    return SERVERS.get(getattr(found, "code", 0), Verdict.NONE)


def verdict_on_opening(error: BaseException) -> Verdict:
    """Return the meaning of an error of ``connect()``.

    The driver reports each error before the logon as DPY-6005, with the first one as its cause. ``open()`` in
    ``driver.py`` does the like with an error of the system, which has no code.

    :param error: the exception.
    :returns: CUT_OFF for an error of the driver's that leaves the state of the server open.
    """
    cause = error
    while cause.__cause__ is not None and getattr(_info(cause), "full_code", "DPY-6005") == "DPY-6005":
        cause = cause.__cause__
    if isinstance(cause, OSError):
        return Verdict.UNREACHABLE
    # The listener's refusal DPY-6000 has the number in its text only.
    if similar := _SIMILAR.search(str(cause)):
        return SERVERS.get(int(similar[1]), verdict_on(cause))
    return verdict_on(cause) or (Verdict.CUT_OFF if cause is error and _is_internal(error) else Verdict.NONE)


def asynchronous_cause(error: BaseException) -> BaseException | None:
    """Return the asynchronous exception that has ended ``connect()``; None: the error is the driver's.

    The driver takes each exception there for a failure of the network: a task's time limit, too.

    :param error: an exception of ``connect()``.
    """
    cause = error.__cause__
    if cause is None or isinstance(cause, OSError) or hasattr(_info(cause), "full_code"):
        return None
    return cause


def _info(error: BaseException) -> object:
    """Return the driver's description of an error, with ``code`` and ``full_code``."""
    return error.args[0] if error.args else None


def _is_internal(error: BaseException) -> bool:
    """Return whether the driver has not understood what it read."""
    return str(getattr(_info(error), "full_code", "")).startswith("DPY-5")
