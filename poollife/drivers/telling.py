"""Statements of MySQL and MariaDB: what they set for later ones of their session, and tell of earlier ones.

Read from their text. Where a text is not understood, this is a search for names outside of strings and
comments. It does not see what a stored routine, a trigger or a view asks for.
"""

from __future__ import annotations

import re

from poollife.drivers.effects import (
    FOUND_ROWS,
    INSERT_ID,
    LAST_STATEMENT,
    LAST_WRITE,
    MAY_SET_INSERT_ID,
    MESSAGES,
    PINS,
    READS,
    SETS,
)

#: By the first word, beside LAST_STATEMENT; a statement that begins otherwise may set all.
_SETS = {
    **dict.fromkeys([b"SELECT", b"WITH"], FOUND_ROWS),
    **dict.fromkeys([b"INSERT", b"REPLACE", b"UPDATE", b"DELETE"], MESSAGES | LAST_WRITE | MAY_SET_INSERT_ID),
    **dict.fromkeys([b"CREATE", b"ALTER", b"DROP", b"TRUNCATE"], MESSAGES | LAST_WRITE | MAY_SET_INSERT_ID),
    **dict.fromkeys([b"SHOW", b"EXPLAIN", b"DESCRIBE", b"DESC", b"SET", b"USE", b"DO", b"UNLOCK"], 0),
    **dict.fromkeys([b"BEGIN", b"START", b"COMMIT", b"ROLLBACK", b"SAVEPOINT", b"RELEASE"], 0),
}
#: By the name of a group in _TELLING.
_TOLD = {
    "insert_id": INSERT_ID << READS,
    "found_rows": FOUND_ROWS << READS,
    "messages": MESSAGES << READS,
    "last_statement": LAST_STATEMENT << READS,
    "last_write": LAST_WRITE << READS,
    "session": PINS,
}
_SYSTEM = r"@@(?:(?:SESSION|LOCAL)\s*\.\s*)?`?"
_CALL = r"[`\"]?\s*\(\s*\)"
_TELLING = re.compile(
    r"(?<![\w$.@`\"])(?:"
    rf"(?P<insert_id>[`\"]?LAST_INSERT_ID{_CALL}|{_SYSTEM}(?:LAST_INSERT_ID|IDENTITY)\b)"
    rf"|(?P<found_rows>[`\"]?FOUND_ROWS{_CALL})"
    r"|(?P<messages>\A\s*SHOW\s+(?:COUNT\s*\(\s*\*\s*\)\s+)?(?:WARNINGS|ERRORS)\b"
    rf"|\A\s*GET\s+(?:CURRENT\s+)?DIAGNOSTICS\b|{_SYSTEM}(?:WARNING|ERROR)_COUNT\b)"
    rf"|(?P<last_statement>[`\"]?ROW_COUNT{_CALL}|\A\s*SHOW\s+PROFILES?\b|{_SYSTEM}LAST_QUERY_\w+)"
    rf"|(?P<last_write>[`\"]?LASTVAL[`\"]?\s*\(|PREVIOUS\s+VALUE\s+FOR\b|{_SYSTEM}LAST_GTID\b)"
    rf"|(?P<session>[`\"]?CONNECTION_ID{_CALL}|{_SYSTEM}PSEUDO_THREAD_ID\b"
    r"|\A\s*SHOW\s+(?:(?:SESSION|LOCAL)\s+)?STATUS\b"
    r"|(?:INFORMATION|PERFORMANCE)_SCHEMA\s*\.\s*SESSION_STATUS\b)"
    r")".encode()
)
#: All that is not code, with the default sql_mode: strings, names in quotes, unless a function or a system
#: variable may be meant, and comments. What an executable comment has in it is code.
_IS_CALLED = r"\s*(?:[(#]|/\*|--)"
_NO_CODE = re.compile(
    r"'(?:[^'\\]++|\\.|'')*'?"
    rf'|(?!(?<=\w)"{_IS_CALLED})"(?!\w+"{_IS_CALLED})(?:[^"\\]++|\\.|"")*"?'
    rf"|(?<![\w@])(?<!SESSION\.)(?<!LOCAL\.)`(?!\w+`{_IS_CALLED})[^`]*`?"
    r"|/\*(?!M?!).*?(?:\*/|\Z)|/\*M?!\d*|\*/|(?:--(?=\s|\Z)|\#)[^\n]*".encode(),
    re.DOTALL,
)
_VARIABLES = re.compile(rb"\s*SHOW\s+(?:(?:SESSION|LOCAL)\s+)?(?:VARIABLES|STATUS)\b")
_LISTING = re.compile(
    rb"\s*SHOW\s+(?:(?:FULL|EXTENDED|SESSION|LOCAL|GLOBAL)\s+)*"
    rb"(?:TABLES|COLUMNS|FIELDS|INDEX|INDEXES|KEYS|STATUS|VARIABLES|DATABASES|SCHEMAS|ENGINES)\b"
)
_DEFINITION = re.compile(rb"[\s(]*(?:CREATE|ALTER)\s+(?!(?:OR\s+REPLACE\s+)?(?:TEMPORARY\s+)?TABLE\b)")
_FIRST_WORD = re.compile(
    rb"[\s(]*(?:SET\s+STATEMENT\b.*?\bFOR\s+)?(?:ANALYZE\s+(?:FORMAT\s*=\s*\w+\s+)?)?[\s(]*(\w+)", re.DOTALL
)
_FROM = re.compile(rb"\bFROM\b(?!\s+DUAL\b)")
_FROM_IN_CALL = re.compile(rb"\b(?:EXTRACT|TRIM|SUBSTR|SUBSTRING|MID)\s*\([^()]*\bFROM\b")
_WRITES = re.compile(rb"\b(?:INSERT|REPLACE|UPDATE|DELETE)\b(?!\s*\()")
_GIVES_ID = re.compile(
    rb"\bLAST_INSERT_ID\s*\(\s*[^\s)]|\A\s*SET\b.*\b(?:LAST_INSERT_ID|IDENTITY)\s*:?=", re.DOTALL
)
_GIVES_VALUE = re.compile(rb"\bNEXT\s+VALUE\s+FOR\b|\b(?:NEXT|SET)VAL\b")
_BLOCK = re.compile(rb"\s*BEGIN\b(?!\s*(?:WORK\b\s*)?\Z)")
_TARGET = re.compile(rb"@@[\w.\s]*?:?=")


def text_of(sql: object, is_template: bool) -> bytes | None:
    """Return a statement's text in upper case; None: it is none."""
    if isinstance(sql, str):
        text = sql.encode(errors="replace")
    elif isinstance(sql, bytes | bytearray):
        text = bytes(sql)
    else:
        return None
    # As bytes, because there upper() changes ASCII only. The operator modulo is as good as any.
    return text.replace(b"%%" if is_template else b"%", b"+").upper()


def told_by(statement: object, effects: int) -> str:
    """Return the first function or the like in a text that tells one of these effects, for people."""
    for found in _TELLING.finditer(code_of(text_of(statement, False) or b"")):
        if _TOLD[str(found.lastgroup)] & effects:
            name, call, _ = found[0].decode().partition("(")
            return name.strip('`" \t\r\n') + ("()" if call else "")
    return "This statement"


def code_of(text: bytes) -> bytes:
    """Return a text without its comments, its strings, and most of its names in quotes."""
    code = _NO_CODE.sub(b" ", text)
    if _VARIABLES.match(code):  # SHOW VARIABLES LIKE 'identity' tells the same as SELECT @@identity
        code += b"".join(b" @@" + name for name in re.findall(rb"'(\w+)'", text))
    return code


def effects_of(code: bytes) -> int:
    """Return all effects but LEAVES of a text that has one or more statements."""
    told = sets = 0
    parts = [part for part in code.split(b";") if part.strip()]
    for part in parts:
        if _DEFINITION.match(part):
            return told | SETS  # what it is made of runs later
        told |= _told(part) & ~(sets << READS)
        sets |= _set(part) | LAST_STATEMENT
        if len(parts) > 1 and sets & MAY_SET_INSERT_ID:
            sets |= INSERT_ID  # the driver sees only the first answer
    return told | sets


def _told(part: bytes) -> int:
    if part.lstrip().startswith(b"SET"):
        part = _TARGET.sub(b" ", part)
    effects = 0
    for found in _TELLING.finditer(part):
        effects |= _TOLD[str(found.lastgroup)]
    return effects


def _set(part: bytes) -> int:
    first = _FIRST_WORD.match(part)
    word = first[1] if first else b""
    effects = SETS if _BLOCK.match(part) else _SETS.get(word, SETS)
    if word in (b"SELECT", b"WITH"):
        # The list of messages is that of the last statement that used a table, or had some.
        if len(_FROM.findall(part)) > len(_FROM_IN_CALL.findall(part)):
            effects |= MESSAGES
        if word == b"WITH" and _WRITES.search(part):
            effects |= LAST_WRITE | MAY_SET_INSERT_ID
    elif effects & LAST_WRITE:
        if b"SELECT" in part:
            effects |= FOUND_ROWS
        if b"RETURNING" in part or b"ANALYZE" in part:
            effects |= INSERT_ID  # the answer does not tell
    elif _LISTING.match(part):
        effects |= FOUND_ROWS | MESSAGES
    if not effects & LAST_WRITE and _GIVES_ID.search(part):
        effects |= INSERT_ID
    if _GIVES_VALUE.search(part):
        effects |= LAST_WRITE | MESSAGES
    return effects
