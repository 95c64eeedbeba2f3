"""Oracle's SQL in SQLite's words, as far as Django's CRUD and the tests need it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: Literals, names in quotes, comments and binds.
_PARTS = re.compile(
    r"(?P<text>'(?:[^']|'')*')|(?P<name>\"[^\"]*\")|(?P<comment>/\*.*?\*/|--[^\n]*)|(?P<bind>:\w+)", re.DOTALL
)
_KEPT = re.compile(r"\0(\d+)\0")
_RETURNING = re.compile(r"\bRETURNING\b(.*?)\bINTO\b\s*((?:\?\s*,?\s*)+)$", re.I | re.S)
_FOR_UPDATE = re.compile(
    r"\s+FOR\s+UPDATE\b(?:\s+OF\b[^?]*?)?(?:\s+(?:NOWAIT|SKIP\s+LOCKED|WAIT\s+\d+))?\s*$", re.I
)
_IDENTITY = re.compile(
    r"NUMBER\s*\(\d+\)\s+GENERATED\s+(?:BY\s+DEFAULT(?:\s+ON\s+NULL)?|ALWAYS)\s+AS\s+IDENTITY"
    r"(?:\s+NOT\s+NULL)?\s+PRIMARY\s+KEY",
    re.I,
)
_CHECK_JSON = re.compile(r"CHECK\s*\((\0\d+\0|\w+)\s+IS\s+JSON\)", re.I)
_INTERVAL = r"INTERVAL\s+DAY(?:\s*\(\d\))?\s+TO\s+SECOND(?:\s*\(\d\))?"
#: What is written in another way.
_REWRITTEN = [
    (re.compile(r"\bTRANSLATE\s*\(((?:[^()]|\([^()]*\))*?)\s+USING\s+N?CHAR_CS\)", re.I), r"(\1)"),
    (re.compile(rf"\bCAST\s*\(([^()]*?)\s+AS\s+(?:{_INTERVAL}|TIMESTAMP|DATE)\)", re.I), r"(\1)"),
    (re.compile(_INTERVAL, re.I), "INTERVAL"),
    (re.compile(r"\bDBMS_LOB\.", re.I), "DBMS_LOB_"),
    (re.compile(r"\bDEFAULT\s+ON\s+NULL\b", re.I), "DEFAULT"),
    (re.compile(r"\s+CASCADE\s+CONSTRAINTS\b", re.I), ""),
    (re.compile(r"\bv\$session\b", re.I), "v_session"),
    (re.compile(r"\bSELECT\s+limit\b", re.I), 'SELECT "limit"'),
    (
        re.compile(r"\bSELECT\s+LEVEL\s+FROM\s+DUAL\s+CONNECT\s+BY\s+LEVEL\s*<=\s*(\S+)", re.I),
        r"WITH RECURSIVE n(level) AS (SELECT 1 UNION ALL SELECT level + 1 FROM n WHERE level < \1)"
        r" SELECT level FROM n",
    ),
    (
        re.compile(r"\s+OFFSET\s+(\S+)\s+ROWS?\s+FETCH\s+(?:FIRST|NEXT)\s+(\S+)\s+ROWS?\s+ONLY", re.I),
        r" LIMIT \2 OFFSET \1",
    ),
    (re.compile(r"\s+FETCH\s+(?:FIRST|NEXT)\s+(\S+)\s+ROWS?\s+ONLY", re.I), r" LIMIT \1"),
    (re.compile(r"\s+OFFSET\s+(\S+)\s+ROWS?\b", re.I), r" LIMIT -1 OFFSET \1"),
    (_IDENTITY, "INTEGER PRIMARY KEY AUTOINCREMENT"),
    (_CHECK_JSON, r"CHECK (\1 IS NULL OR json_valid(\1))"),
]
#: The kinds of statements, by their first words.
_KINDS = [
    ("query", r"SELECT|WITH|\("),
    ("change", r"INSERT|UPDATE|DELETE|MERGE"),
    ("savepoint", r"SAVEPOINT|ROLLBACK\s+TO"),
    ("commit", r"COMMIT"),
    ("rollback", r"ROLLBACK"),
    ("lock", r"LOCK"),
    ("block", r"BEGIN|DECLARE|CALL"),
    ("session", r"ALTER\s+SESSION|SET\s"),
    ("administration", r"ALTER\s+SYSTEM|(?:CREATE|ALTER|DROP)\s+(?:(?:TEMPORARY\s+)?TABLESPACE|USER)|GRANT"),
    ("nothing", r"ALTER|COMMENT|CREATE\s+SEQUENCE"),
    ("definition", r"CREATE|DROP|TRUNCATE"),
]
_KIND = re.compile("|".join(rf"(?P<{kind}>{words})" for kind, words in _KINDS), re.I)


@dataclass(frozen=True)
class Statement:
    """A statement of Oracle's."""

    #: The text as it came.
    text: str
    #: One of _KINDS, or "unknown".
    kind: str
    #: The text for SQLite, and the same with NULL for each bind.
    translated: str
    without_binds: str
    #: Whether the rows stay locked.
    locks: bool
    #: The number of binds that take values of RETURNING ... INTO. They are the last ones.
    returned: int


@lru_cache(4096)
def translate(text: str) -> Statement:
    """Return a statement of Oracle's with its translation."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        if found["bind"]:
            return "?"
        if found["comment"]:
            return " "
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    sql = _PARTS.sub(keep, text).strip()
    returned = 0
    if found := _RETURNING.search(sql):
        returned = found[2].count("?")
        sql = f"{sql[: found.start()]}RETURNING {found[1]}"
    locks = bool(_FOR_UPDATE.search(sql))
    sql = _FOR_UPDATE.sub("", sql)
    for pattern, replacement in _REWRITTEN:
        sql = pattern.sub(replacement, sql)

    def restored(sql: str) -> str:
        return _KEPT.sub(lambda found: kept[int(found[1])], sql)

    kind = _KIND.match(sql)
    return Statement(
        text,
        (kind and kind.lastgroup) or "unknown",
        restored(sql),
        restored(sql.replace("?", "NULL")),
        locks,
        returned,
    )
