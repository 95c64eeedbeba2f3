"""Statements of SQLite: what they leave in their handle, set for later ones, and tell of earlier ones.

The first word says it: the module runs one statement at a time.
"""

from __future__ import annotations

import re

from poollife.drivers.effects import (
    INSERT_ID,
    LAST_STATEMENT,
    LAST_WRITE,
    LEAVES,
    MAY_SET_INSERT_ID,
    PINS,
    READS,
    SETS,
    UNKNOWN,
    Memory,
)
from poollife.drivers.statements import without_comments_around

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(\w+)", re.ASCII)
#: EXPLAIN is not among them but before them: a PRAGMA that is explained is carried out.
_HARMLESS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
    r"(?:EXPLAIN\s+(?:QUERY\s+PLAN\s+)?)?"
    r"(?:SELECT|VALUES|WITH|INSERT|UPDATE|DELETE|REPLACE|BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b",
    re.ASCII | re.IGNORECASE,
)
_INSERTS = LAST_WRITE | MAY_SET_INSERT_ID
#: By the first word, beside LAST_STATEMENT. WITH may begin any of them.
_SETS = {
    "INSERT": _INSERTS,
    "REPLACE": _INSERTS,
    "WITH": _INSERTS,
    "UPDATE": LAST_WRITE,
    "DELETE": LAST_WRITE,
}
#: By the name of a group in _TELLING.
_TOLD = {"insert_id": INSERT_ID << READS, "last_write": LAST_WRITE << READS, "session": PINS}
_CALL = r"[`\"\]]?\s*\(\s*\)"
_TELLING = re.compile(
    r"(?<![\w$.`\"\[])[`\"\[]?(?:"
    rf"(?P<insert_id>LAST_INSERT_ROWID{_CALL})|(?P<last_write>CHANGES{_CALL})|(?P<session>TOTAL_CHANGES{_CALL})"
    r")",
    re.IGNORECASE,
)
#: Strings, comments, and names in quotes, unless a function may be meant.
_IS_CALLED = r"[`\"\]]\s*(?:\(|/\*|--)"
_NO_CODE = re.compile(
    rf"'[^']*'?|(?!(?<=\w){_IS_CALLED})(?:\"(?!\w+{_IS_CALLED})[^\"]*\"?|`(?!\w+{_IS_CALLED})[^`]*`?)"
    rf"|\[(?!\w+{_IS_CALLED})[^\]]*\]?"
    r"|/\*.*?(?:\*/|\Z)|--[^\n]*",
    re.DOTALL,
)


def told_by(statement: object, effects: int) -> str:
    """Return the first function in a text that tells one of these effects, for people."""
    for found in _TELLING.finditer(_NO_CODE.sub(" ", str(statement))):
        if _TOLD[str(found.lastgroup)] & effects:
            return found[0].strip('`"[')
    return "This statement"


def read(sql: object) -> int:
    """Return the effects that a text has on its handle, but for an open transaction."""
    if not isinstance(sql, str):
        return UNKNOWN
    effects = LAST_STATEMENT if _HARMLESS.match(sql) else LEAVES | LAST_STATEMENT
    first = _FIRST_WORD.match(sql)
    effects |= _SETS.get(first[1].upper(), 0) if first else SETS
    if "changes" in (lower := sql.lower()) or "last_insert_rowid" in lower:
        for found in _TELLING.finditer(_NO_CODE.sub(" ", sql)):
            effects |= _TOLD[str(found.lastgroup)]
    return effects


EFFECTS = Memory(read, without_comments_around)
