"""Statements of SQLite: what they leave in their handle, set for later statements, and read of earlier ones.

The first word decides: sqlite3 runs one statement at a time.
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

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*(\w+)", re.ASCII)
#: Statements that leave nothing, also behind EXPLAIN. EXPLAIN alone is not enough: SQLite executes a PRAGMA
#: that is explained.
_HARMLESS = re.compile(
    r"(?:\s|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)*"
    r"(?:EXPLAIN\s+(?:QUERY\s+PLAN\s+)?)?"
    r"(?:SELECT|VALUES|WITH|INSERT|UPDATE|DELETE|REPLACE|BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE)\b",
    re.ASCII | re.IGNORECASE,
)
#: Effects by the first word, beside LAST_STATEMENT. For WITH, that is the first word behind its parentheses.
_SETS = {
    **dict.fromkeys(["INSERT", "REPLACE"], LAST_WRITE | MAY_SET_INSERT_ID),
    **dict.fromkeys(["UPDATE", "DELETE"], LAST_WRITE),
}
_WORDS = re.compile(r"(\()|(\))|\b(SELECT|VALUES|INSERT|REPLACE|UPDATE|DELETE)\b", re.IGNORECASE)
#: A statement that updates a row if it exists already. changes() counts that row, too.
_UPSERTS = re.compile(r"\bDO\s+UPDATE\b", re.IGNORECASE)
#: A statement that is answered with rows: Python has these, but does not know their number yet.
_RETURNS = re.compile(r"\bRETURNING\b", re.IGNORECASE)
#: A statement that may insert no row, without an error.
_MAY_INSERT_NOTHING = re.compile(r"\b(?:IGNORE|CONFLICT|SELECT)\b", re.IGNORECASE)
#: Effects by the name of a group in _TELLING.
_TOLD = {"insert_id": INSERT_ID << READS, "last_write": LAST_WRITE << READS, "session": PINS}
_CALL = r"[`\"\]]?\s*\(\s*\)"
_TELLING = re.compile(
    r"(?<![\w$.`\"\[])[`\"\[]?(?:"
    rf"(?P<insert_id>LAST_INSERT_ROWID{_CALL})|(?P<last_write>CHANGES{_CALL})|(?P<session>TOTAL_CHANGES{_CALL})"
    r")",
    re.IGNORECASE,
)
#: Text that is not code: strings, comments, and names in quotes, unless a function may be meant.
_IS_CALLED = r"[`\"\]]\s*(?:\(|/\*|--)"
_NO_CODE = re.compile(
    rf"'[^']*'?|(?!(?<=\w){_IS_CALLED})(?:\"(?!\w+{_IS_CALLED})[^\"]*\"?|`(?!\w+{_IS_CALLED})[^`]*`?)"
    rf"|\[(?!\w+{_IS_CALLED})[^\]]*\]?"
    r"|/\*.*?(?:\*/|\Z)|--[^\n]*",
    re.DOTALL,
)


def told_by(statement: object, effects: int) -> str:
    """Return the first function in a statement that reads one of these effects, for an error text."""
    for found in _TELLING.finditer(_NO_CODE.sub(" ", str(statement))):
        if _TOLD[str(found.lastgroup)] & effects:
            return found[0].strip('`"[')
    return "This statement"


def read(sql: object) -> int:
    """Return the effects that a text has on its handle, without those of an open transaction."""
    if not isinstance(sql, str):
        return UNKNOWN
    effects = LAST_STATEMENT if _HARMLESS.match(sql) else LEAVES | LAST_STATEMENT
    first = _FIRST_WORD.match(sql)
    word = first[1].upper() if first else ""
    lower = sql.lower()
    if word == "WITH" or (word in ("INSERT", "REPLACE") and ("update" in lower or "returning" in lower)):
        effects |= _set(_NO_CODE.sub(" ", sql), word)
    else:
        effects |= _SETS.get(word, 0)
    if "changes" in lower or "last_insert_rowid" in lower:
        for found in _TELLING.finditer(_NO_CODE.sub(" ", sql)):
            effects |= _TOLD[str(found.lastgroup)]
    return effects


def _set(code: str, word: str) -> int:
    if word == "WITH":
        word = _behind_with(code)
    effects = _SETS.get(word, 0)
    if effects & MAY_SET_INSERT_ID:
        if _UPSERTS.search(code):
            effects &= ~MAY_SET_INSERT_ID
        elif _RETURNS.search(code):
            effects &= ~MAY_SET_INSERT_ID
            if not _MAY_INSERT_NOTHING.search(code):
                effects |= INSERT_ID
    return effects


def _behind_with(code: str) -> str:
    """Return the first word of the statement behind all parts of a WITH."""
    depth = 0
    for opens, closes, word in _WORDS.findall(code):
        depth += bool(opens) - bool(closes)
        if word and not depth:
            return str(word).upper()
    return ""


def set_by_script(script: str) -> int:
    """Return the bits that a script may have set, if it has changed rows."""
    inserts = re.search(r"\b(?:INSERT|REPLACE)\s+(?!\()", _NO_CODE.sub(" ", script), re.IGNORECASE)
    return SETS if inserts else SETS & ~INSERT_ID


EFFECTS = Memory(read)
