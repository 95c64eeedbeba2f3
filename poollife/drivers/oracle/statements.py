"""Statements of Oracle: which of them leave state in their session, as their text shows.

Only statements that are known to leave nothing keep a session clean. A statement that is not understood
counts as one that leaves state, which costs a new session: Oracle has no reset that a client could ask for.
So ALTER SESSION, SET ROLE, each block of PL/SQL, each call of a function that is not Oracle's own and each
definition of a table is dirty.

The text has no values in it: the driver sends binds beside it. What a transaction leaves ends with the
rollback at the return, so SAVEPOINT, LOCK TABLE and SET TRANSACTION are clean.

State that does not show in a statement's text: a function without parentheses (``SELECT f FROM dual``), what
triggers, views and virtual columns call, and rows in a temporary table that keeps them for its session.
"""

from __future__ import annotations

import re

from poollife.drivers.effects import LAST_NUMBER, LEAVES, PINS, READS, UNKNOWN, Memory, upper_text
from poollife.drivers.oracle.functions import FUNCTIONS, KEYWORDS, QUALIFIED, TYPES

#: The captures of _TOKEN that are known: an empty one stands for a token without a capture.
_KNOWN = frozenset([b"", *f"{FUNCTIONS} {QUALIFIED} {TYPES} {KEYWORDS}".encode().split()])

_COMMENT = r"(?:/\*(?:[^*]++|\*(?!/))*\*/|--[^\n\r]*+(?=\n|\Z))"
_APART = rf"\s*(?:{_COMMENT}\s*)*"
_PLAIN = r"[A-Z][\w$#]*+"
_QUOTED = r"\"[^\"\0]++\"(?!\")"
_NAME = rf"(?:{_PLAIN}|{_QUOTED})"
_NAMES = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_LIST = rf"\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)"
#: A parenthesis that makes the name before it a call; "(+)" marks an outer join.
_CALL = rf"{_APART}\((?!\s*\+\s*\))"
_OPEN = rf"(?={_CALL})"
_HEAD = re.compile(
    rf"[\s(]*(?:{_COMMENT}[\s(]*)*"
    r"(?P<verb>SELECT|WITH|INSERT|UPDATE|DELETE|MERGE|SAVEPOINT|COMMIT|ROLLBACK"
    r"|LOCK\s+TABLE|SET\s+(?:TRANSACTION|CONSTRAINTS?))(?![\w$#])".encode()
)
#: Names before a parenthesis that are no call.
_NO_CALLS = [
    rf"\bINTO\b{_APART}{_NAMES}(?:\s+(?:AS\s+)?(?!VALUES\b|SELECT\b){_NAME})?{_OPEN}",
    # A common table expression with names for its columns.
    rf"{_NAME}\s*{_LIST}\s*AS\s*\((?=\s*(?:SELECT|VALUES)\b)",
    rf"\bINSERT\s*(?={_LIST}\s*VALUES\b)",  # in a MERGE
]
_TOKEN = re.compile(
    "|".join(
        [
            r"[\s,()]++",
            *_NO_CALLS,
            rf"{_QUOTED}(?!{_CALL})",
            # Not Q'[...]', whose end is another one.
            r"N?'(?:[^'\0]++|'')*'(?!')",
            r"(?:\d++(?:\.\d*+)?|\.\d++)(?:E[+-]?\d++)?[DF]?(?![\w$#.'\"])",
            r":\s*(?:[A-Z0-9]\w*+|\"\w++\")",
            rf"\.(?={_NAME}|\*)",
            _COMMENT,
            r"\|\||[<>^!]=|<>|=>|[+*<>=-](?!-)|/(?!\*)",
            rf";{_APART}\Z",
            rf"{_PLAIN}(?!{_CALL}|'|\.{_PLAIN}{_CALL})",
            # Names that are called, with what they belong to, and all the rest at once.
            rf"((?<!\.){_PLAIN}(?:\.{_PLAIN})?{_OPEN}|(?s:.+))",
        ]
    ).encode()
)
#: Text that is not code: comments, strings and most names in quotes.
_NO_CODE = re.compile(rf"{_COMMENT}|'(?:[^']|'')*'".encode())
_DRAWS_NUMBER = re.compile(rb"\b(?:INSERT|MERGE)\b|\.\s*\"?NEXTVAL\b")
_READS_NUMBER = re.compile(rb"[\w$#\"]\s*\.\s*\"?CURRVAL\b")
#: Facts about the session itself: they are of use to the borrower as long as it keeps the session.
_PINS = re.compile(rb"\bSYS_CONTEXT\s*\(\s*N?'USERENV'\s*,\s*N?'(?:SID|SESSIONID|SESSION_\w*|INSTANCE)'")


def told_by(statement: object, effects: int) -> str:
    """Return what reads the number of a sequence in a statement, for an error text."""
    found = re.search(r"[\w$#\"]+\s*\.\s*\"?CURRVAL\"?", str(statement), re.IGNORECASE)
    return found[0] if found else "This statement"


def read(sql: object) -> int:
    """Return the effects that a text of Oracle's has on its session.

    :param sql: the text.
    :returns: bits of ``drivers/effects.py``.
    """
    # Only the driver knows how a text of other types is made. Oracle reads a zero byte as the end of a text.
    text = upper_text(sql, False, b"%") if isinstance(sql, str) else None
    if text is None or b"\0" in text:
        return UNKNOWN
    effects = 0 if _is_clean(text) else LEAVES | LAST_NUMBER
    if b"CURRVAL" in text or b"NEXTVAL" in text or b"INSERT" in text or b"MERGE" in text:
        code = _NO_CODE.sub(b" ", text)
        if _DRAWS_NUMBER.search(code):
            effects |= LAST_NUMBER
        # In one statement Oracle draws the number before it reads it.
        if b"NEXTVAL" not in code and _READS_NUMBER.search(code):
            effects |= LAST_NUMBER << READS
    if b"USERENV" in text and _PINS.search(text):
        effects |= PINS
    return effects


def _is_clean(text: bytes) -> bool:
    """Return whether each token of a text is known."""
    head = _HEAD.match(text)
    if not head:
        return False
    found = _TOKEN.findall(text, head.start("verb"))
    return _KNOWN.issuperset(found)


EFFECTS = Memory(read)
