"""Statements of MySQL and MariaDB: the values that they set for later statements, and read of earlier ones.

Both are taken from their text. In a text that is not understood, the module searches for names outside of
strings and comments. It does not see what a stored routine, a trigger or a view reads.
"""

from __future__ import annotations

import re
from functools import partial

from poollife.drivers.effects import (
    FOUND_ROWS,
    INSERT_ID,
    LAST_NUMBER,
    LAST_STATEMENT,
    LAST_WRITE,
    MAY_SET_INSERT_ID,
    MESSAGES,
    PINS,
    READS,
    SETS,
    UPSERTS,
    upper_text,
)

_WRITES_ROWS = MESSAGES | LAST_WRITE | LAST_NUMBER
#: Effects by the first word, beside LAST_STATEMENT. A statement that begins with another word has no others.
_SETS = {
    **dict.fromkeys([b"SELECT", b"WITH"], FOUND_ROWS),
    **dict.fromkeys([b"INSERT", b"REPLACE"], _WRITES_ROWS | MAY_SET_INSERT_ID),
    **dict.fromkeys([b"UPDATE", b"DELETE", b"CREATE", b"ALTER", b"DROP", b"TRUNCATE"], MESSAGES | LAST_WRITE),
    **dict.fromkeys([b"GRANT", b"REVOKE", b"RENAME"], LAST_WRITE),
    **dict.fromkeys([b"LOCK", b"HANDLER", b"OPTIMIZE", b"CHECK", b"REPAIR", b"CHECKSUM"], MESSAGES),
    # The answers to these do not say whether an id was set.
    b"LOAD": _WRITES_ROWS | INSERT_ID,
    b"CALL": SETS,
    b"EXECUTE": SETS & ~INSERT_ID | MAY_SET_INSERT_ID,
}
#: Effects by the name of a group in _TELLING.
_TOLD = {
    "insert_id": INSERT_ID << READS,
    "found_rows": FOUND_ROWS << READS,
    "messages": MESSAGES << READS,
    "last_statement": LAST_STATEMENT << READS,
    "last_write": LAST_WRITE << READS,
    "last_number": LAST_NUMBER << READS,
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
    rf"|(?P<last_write>{_SYSTEM}LAST_GTID\b)"
    r"|(?P<last_number>[`\"]?LASTVAL[`\"]?\s*\(|PREVIOUS\s+VALUE\s+FOR\b)"
    rf"|(?P<session>[`\"]?CONNECTION_ID{_CALL}|{_SYSTEM}PSEUDO_THREAD_ID\b"
    r"|\A\s*SHOW\s+(?:(?:SESSION|LOCAL)\s+)?STATUS\b"
    r"|(?:INFORMATION|PERFORMANCE)_SCHEMA\s*\.\s*SESSION_STATUS\b)"
    r")".encode()
)
#: Text that is not code, with the default sql_mode: strings, comments, and names in quotes, unless a function
#: or a system variable may be meant. The text in an executable comment is code.
_IS_CALLED = r"\s*(?:[(#]|/\*|--)"
_NO_CODE = re.compile(
    r"'(?:[^'\\]++|\\.|'')*'?"
    rf'|(?!(?<=\w)"{_IS_CALLED})"(?!\w+"{_IS_CALLED})(?:[^"\\]++|\\.|"")*"?'
    rf"|(?<![\w@])(?<!SESSION\.)(?<!LOCAL\.)`(?!\w+`{_IS_CALLED})[^`]*`?"
    r"|/\*(?!M?!).*?(?:\*/|\Z)|/\*M?!\d*|\*/|(?:--(?=\s|\Z)|\#)[^\n]*".encode(),
    re.DOTALL,
)
#: A table with the name of a function, and its columns: not a call.
_TABLE = re.compile(
    rb"\b(?:INTO|INSERT|REPLACE|IGNORE|TABLE|EXISTS|WITH)\s+"
    rb"[`\"]?(?:LASTVAL|LAST_INSERT_ID|FOUND_ROWS|ROW_COUNT|CONNECTION_ID)[`\"]?\s*\("
)
_VARIABLES = re.compile(rb"\s*SHOW\s+(?:(?:SESSION|LOCAL)\s+)?(?:VARIABLES|STATUS)\b")
#: Strings in these statements: names, or patterns, in which text_of() has replaced "%" by "+".
_PATTERN = re.compile(rb"(['\"])([\w+\\]{1,64})\1")
#: The variables in _TELLING.
_NAMES = (
    *(b"LAST_INSERT_ID", b"IDENTITY", b"WARNING_COUNT", b"ERROR_COUNT", b"LAST_GTID", b"PSEUDO_THREAD_ID"),
    *(b"LAST_QUERY_COST", b"LAST_QUERY_PARTIAL_PLANS"),
)
_WILDCARDS = re.compile(rb"\\(_)|(_)|(\+)|\\")
_LISTING = re.compile(
    rb"\s*SHOW\s+(?:(?:FULL|EXTENDED|SESSION|LOCAL|GLOBAL)\s+)*"
    rb"(?:TABLES|COLUMNS|FIELDS|INDEX|INDEXES|KEYS|STATUS|VARIABLES|DATABASES|SCHEMAS|ENGINES)\b"
)
_SHOWS_TABLE = re.compile(rb"\s*SHOW\s+CREATE\s+(?:TABLE|VIEW)\b")
_DEFINITION = re.compile(rb"[\s(]*(?:CREATE|ALTER)\s+(?!(?:OR\s+REPLACE\s+)?(?:TEMPORARY\s+)?TABLE\b)")
#: A definition that may have statements in it that end with a semicolon.
_ROUTINE = re.compile(
    rb"[\s(]*(?:CREATE|ALTER)\b(?:(?!\b(?:TABLE|INDEX|VIEW|SEQUENCE|DATABASE|SCHEMA|USER|ROLE|SERVER)\b)[^(;])*?"
    rb"\b(?:PROCEDURE|FUNCTION|TRIGGER|EVENT|PACKAGE)\b"
)
_FIRST_WORD = re.compile(
    rb"[\s(]*(?:SET\s+STATEMENT\b.*?\bFOR\s+)?(?P<analyze>ANALYZE\s+(?:FORMAT\s*=\s*\w+\s+)?)?[\s(]*(?P<word>\w+)",
    re.DOTALL,
)
_TABLES = re.compile(rb"(\b(?:EXTRACT|TRIM|SUBSTR|SUBSTRING|MID)\s*\()|(\()|(\))|\bFROM\b(?!\s+DUAL\b)")
_SELECTS = re.compile(rb"(\()|(\))|\bSELECT\b")
_WRITES = re.compile(rb"(?<!\bFOR\s)\b(?:UPDATE|DELETE)\b(?!\s*\()")
#: A statement that is answered with rows. The word is reserved in MariaDB. In MySQL it is not: a column may
#: have that name.
_RETURNS = re.compile(rb"[^\s(,.]\s*\bRETURNING\b(?!\s*[=,)])")
_UPSERTS = re.compile(rb"\bON\s+DUPLICATE\s+KEY\b")
#: A statement that may insert no row, without an error.
_MAY_INSERT_NOTHING = re.compile(rb"\b(?:IGNORE|SELECT|TABLE)\b")
_GIVES_ID = re.compile(
    rb"\bLAST_INSERT_ID\s*\(\s*[^\s)]|\A\s*SET\b.*\b(?:LAST_INSERT_ID|IDENTITY)\s*:?=", re.DOTALL
)
_GIVES_VALUE = re.compile(rb"\bNEXT\s+VALUE\s+FOR\b|\bNEXTVAL\b")
#: A function that does not change the answer of LASTVAL().
_SETS_SEQUENCE = re.compile(rb"\bSETVAL\s*\(")
_BLOCK = re.compile(rb"\s*(?:BEGIN\b(?!\s*(?:WORK\b\s*)?\Z)|(?:IF|ELSE|ELSEIF|CASE|LOOP|WHILE|REPEAT|FOR)\b)")
#: The first statement in a block, if it may set an id.
_IN_BLOCK = re.compile(rb"\b(?:INSERT|REPLACE|CALL|EXECUTE|LOAD)\s+(?!\()")
_TARGET = re.compile(rb"@@[\w.\s]*?:?=")


# "+" takes the place of modulo: any operator will do.
text_of = partial(upper_text, percent=b"+")


def told_by(statement: object, effects: int) -> str:
    """Return the first function or variable in a statement that reads one of these, for an error text."""
    for found in _TELLING.finditer(code_of(text_of(statement, False) or b"")):
        if _TOLD[str(found.lastgroup)] & effects:
            name, call, _ = found[0].decode().partition("(")
            return name.strip('`" \t\r\n') + ("()" if call else "")
    return "This statement"


def code_of(text: bytes) -> bytes:
    """Return a text without its comments, its strings, and most of its names in quotes."""
    code = _NO_CODE.sub(b" ", text)
    # SHOW VARIABLES LIKE 'identity' has the same answer as SELECT @@identity.
    if _VARIABLES.match(code) or b"_VARIABLES" in code:
        patterns = {pattern for _, pattern in _PATTERN.findall(text)}
        code += b"".join(b" @@" + name for name in _NAMES if any(_is_like(name, each) for each in patterns))
    return code


def _is_like(name: bytes, pattern: bytes) -> bool:
    """Return whether a pattern of LIKE asks for a name. A pattern of wildcards only asks for no name."""
    if not pattern.strip(b"+_\\"):
        return False
    # A match with more wildcards would take too long, and no application asks for a variable in this way.
    return pattern.count(b"+") < 5 and bool(re.fullmatch(_WILDCARDS.sub(_as_regex, pattern), name))


def _as_regex(wildcard: re.Match[bytes]) -> bytes:
    literal, one, _ = wildcard.groups()
    return b"_" if literal else b"." if one else b".*"


def effects_of(code: bytes) -> int:
    """Return all effects but LEAVES of a text that has one or more statements.

    :param code: the result of ``code_of()``.
    """
    told = sets = 0
    parts = [part for part in code.split(b";") if part.strip()]
    for part in parts:
        if not _DEFINITION.match(part):  # the statements in it run later
            told |= _told(part) & ~(sets << READS)
        if _ROUTINE.match(part):
            return told | sets | LAST_STATEMENT | LAST_WRITE
        sets |= _set(part, len(parts) == 1) | LAST_STATEMENT
    return told | sets


def _told(part: bytes) -> int:
    if part.lstrip().startswith(b"SET"):
        part = _TARGET.sub(b" ", part)
    effects = 0
    if _TELLING.search(part):
        for found in _TELLING.finditer(_TABLE.sub(b" ", part)):
            effects |= _TOLD[str(found.lastgroup)]
    return effects


def _set(part: bytes, is_alone: bool) -> int:
    """Return the bits that one statement sets.

    :param is_alone: whether the text has no other statement. Of several answers the driver sees only the
        first.
    """
    first = _FIRST_WORD.match(part)
    word = first["word"] if first else b""
    gives_id = _GIVES_ID.search(part)
    if _BLOCK.match(part):
        return SETS if gives_id or _IN_BLOCK.search(part) else SETS & ~INSERT_ID
    effects = _SETS.get(word, 0)
    if word == b"TABLE" and first and first["analyze"]:
        effects = MESSAGES
    if word in (b"SELECT", b"WITH"):
        # The list of messages belongs to the last statement that used a table, or that had messages.
        if _uses_table(part):
            effects |= MESSAGES
        if word == b"WITH" and _WRITES.search(part):
            effects |= LAST_WRITE
    elif effects & LAST_WRITE:
        if word in (b"INSERT", b"REPLACE", b"CREATE") and _ends_in_select(part):
            effects |= FOUND_ROWS | MAY_SET_INSERT_ID
    elif (word in (b"EXPLAIN", b"DESC", b"DESCRIBE") and _uses_table(part)) or _SHOWS_TABLE.match(part):
        effects |= MESSAGES
    elif _LISTING.match(part):
        effects |= FOUND_ROWS | MESSAGES
    if gives_id:
        effects |= MAY_SET_INSERT_ID if effects & LAST_WRITE else INSERT_ID
    elif b"DUPLICATE" in part and _UPSERTS.search(part):
        effects |= UPSERTS
    is_seen = is_alone and not (first and first["analyze"])
    if b"RETURNING" in part:  # a quick test before the slow search
        is_seen = is_seen and not _RETURNS.search(part)
    if effects & MAY_SET_INSERT_ID and not is_seen:
        # The answer does not say whether an id was set.
        effects &= ~MAY_SET_INSERT_ID
        surely = word in (b"INSERT", b"REPLACE") and not _MAY_INSERT_NOTHING.search(part)
        if surely and not effects & UPSERTS:
            effects |= INSERT_ID
    if word == b"UPDATE" and b"DEFAULT" in part:
        effects |= LAST_NUMBER
    if _GIVES_VALUE.search(part):
        effects |= LAST_WRITE | LAST_NUMBER | MESSAGES
    elif _SETS_SEQUENCE.search(part):
        effects |= LAST_WRITE | MESSAGES
    return effects


def _ends_in_select(part: bytes) -> bool:
    """Return whether a statement writes the rows of a SELECT. A SELECT that is one value does not count."""
    if b"SELECT" not in part or _DEFINITION.match(part):
        return False
    depth = 0
    for opens, closes in _SELECTS.findall(part):
        depth += bool(opens) - bool(closes)
        if not (opens or closes or depth):
            return True
    return False


def _uses_table(part: bytes) -> bool:
    """Return whether a SELECT has a FROM outside of a function such as EXTRACT(YEAR FROM ...)."""
    in_call = [False]
    for call, opens, closes in _TABLES.findall(part):
        if call or opens:
            in_call.append(bool(call))
        elif closes:
            if len(in_call) > 1:
                in_call.pop()
        elif not in_call[-1]:
            return True
    return False
