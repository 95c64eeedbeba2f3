"""Statements of PostgreSQL: which of them leave state in their session, as their text shows.

Only statements that are known to leave nothing keep a session clean. A statement that is not understood
counts as one that leaves state, which costs a reset of one round trip. The opposite mistake would hand one
borrower's state to the next. So DDL counts as dirty, too: it is rare, and what a definition evaluates does
not always show.

The reader expects ``standard_conforming_strings = on``, and a client encoding that the driver writes without
ambiguity: the driver has to compare both.

Statements that begin or end a transaction count as clean: the client knows for nothing whether a transaction
is open (``PQtransactionStatus``), and the driver ends it.

Code that does not show in a statement's text: triggers, defaults of columns, views, rules, checks of domains,
a user's casts, functions and operators with a built-in's name and other types, and a function without
parentheses (``SELECT t.f FROM t`` calls ``f(t)`` if ``t`` has no column ``f``).
"""

from __future__ import annotations

import re

from poollife.drivers.effects import UNKNOWN, memories
from poollife.drivers.postgresql.effects import (
    APART,
    COMMENT,
    PERCENT,
    effects_if_dirty,
    effects_of,
    text_of,
)
from poollife.drivers.postgresql.functions import (
    EXTENSIONS,
    FUNCTIONS,
    HARMLESS,
    KEYWORDS,
    OPERATORS,
    TYPES,
)

#: The captures of _TOKEN that are known: an empty one stands for a token without a capture.
_KNOWN = frozenset(
    [b"", *f"{FUNCTIONS} {HARMLESS} {EXTENSIONS} {KEYWORDS}".encode().split()]
    + [b"::" + name.encode() for name in TYPES.split()]
    + [name.encode().replace(b"%", PERCENT) for name in OPERATORS.split()]
)

# The server's lexer is src/backend/parser/scan.l. Its identifiers have all characters beyond ASCII. A line
# comment ends with a carriage return, too. A comment in a comment has an end of its own; here it is not
# understood.
_LETTER = r"[A-Z_\x80-\xff]"
_END = r"(?![\w$\x80-\xff])"
_PLAIN = rf"{_LETTER}[\w$\x80-\xff]*+"
_QUOTED = r"\"(?:[^\"%]++|\"\")+\"(?!\")"
_NAME = rf"(?:{_PLAIN}|{_QUOTED})"
_NAMES = rf"\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\)"
_STRING = r"'(?:[^'%]++|'')*'(?!')"
#: What makes the name before it a call, or a type: a parenthesis, a parameter (psycopg2 writes a tuple with
#: parentheses) or a string.
_CALL = rf"(?={APART}(?:[(%']|\$(?!\d)|(?:[EBXN]|U&)'))"
_OPEN = rf"(?={APART}\()"
#: Characters of operators; "--" and "/*" begin a comment in the middle of them.
_MINUS, _SLASH = r"-(?!-)", r"/(?!\*)"
_OPERATOR = rf"(?:[~!@#^&|`?+*<>=\x01]|{_MINUS}|{_SLASH})"
#: Operators of these characters only do not end with a sign: "=-1" has two of them.
_PLAIN_OPERATOR = rf"(?:(?:[+*<>=]|{_MINUS}|{_SLASH}){{1,4}}?(?=(?:\+|{_MINUS}){{0,4}}(?!{_OPERATOR})))"


def _words(*names: str) -> str:
    """Return an expression for words, each of them whole, with comments or white space between."""
    return r"(?<!\.)" + APART.join(name + _END for name in names)


_QUERIES = "(?:SELECT|VALUES|TABLE|INSERT|UPDATE|DELETE|MERGE|WITH)"
_HEAD = re.compile(
    rf"[\s(]*(?:{COMMENT}[\s(]*)*"
    rf"(?:EXPLAIN\s*(?:\([\w\s,.]*\)|(?:\bANALYZE\b)?\s*(?:\bVERBOSE\b)?)[\s(]*)?(?P<verb>{_QUERIES}"
    r"|SHOW|SAVEPOINT|RELEASE|COPY|TRUNCATE|LOCK|NOTIFY|FETCH|MOVE|CLOSE|SET\s+(?:CONSTRAINTS|TRANSACTION)"
    # SET LOCAL seed = 0.5 seeds random() for good. With the others, texts are read in another way.
    r"|SET\s+LOCAL\b(?!.*\b(?:SEED|STANDARD_CONFORMING_STRINGS|CLIENT_ENCODING|NAMES)\b)"
    rf"|DECLARE\s+{_NAME}\s+(?:(?:BINARY|ASENSITIVE|INSENSITIVE|NO|SCROLL)\s+)*CURSOR\s+(?:WITHOUT\s+HOLD\s+)?FOR"
    rf"|ROLLBACK\s+(?:(?:WORK|TRANSACTION)\s+)?TO){_END}".encode(),
    re.DOTALL,
)
_TRANSACTION = re.compile(
    rb"\s*(?:(?:BEGIN|START\s+TRANSACTION)(?:\s[\sA-Z,]*)?"
    rb"|(?:COMMIT|END|ROLLBACK|ABORT)(?:\s+(?:WORK|TRANSACTION))?(?:\s+AND\s+NO\s+CHAIN)?)\s*;?\s*"
)
#: Names before a parenthesis that are no call. Everywhere else the name in this place could be a function.
_NO_CALLS = [
    # In SELECT 1 insert INTO x, "insert" is an alias, and the table is made. It could be a temporary one.
    rf"{_words('(?:INSERT|MERGE)', 'INTO')}(?!{APART}(?:TEMP|TEMPORARY|LOCAL|GLOBAL|UNLOGGED|TABLE){_END})"
    rf"(?:{APART}{_NAME}(?:\.{_NAME})*(?:{APART}AS{_END}{APART}{_NAME})?{_OPEN})?",
    rf"{_words('COPY')}(?:{APART}{_NAME}(?:\.{_NAME})*{_OPEN}|(?=\s*\(\s*(?:SELECT|WITH){_END}))",
    # A common table expression with names for its columns. In FROM f(a) AS (b int) it would be a call.
    rf"(?<!\.){_NAME}\s*{_NAMES}\s*AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?"
    rf"\((?=\s*(?:SELECT{_END}|VALUES\s*\(|INSERT\s+INTO{_END}|DELETE\s+FROM{_END}))",
    rf"{_words('AS', '(?:NOT)', '(?:MATERIALIZED)')}{_OPEN}",
    rf"{_words('AS')}{APART}{_NAME}{_OPEN}",
    rf"{_words('WITH', 'ORDINALITY')}{APART}{_NAME}{_OPEN}",
    rf"{_words('ON', 'CONFLICT')}(?=\s*{_NAMES}\s*DO{_END})",
    rf"{_words('(?:ORDER|GROUP|PARTITION)', 'BY')}(?:{APART}(?:ROLLUP|CUBE){_OPEN})?",
    rf"{_words('GROUPING', 'SETS')}{_OPEN}",
    rf"{_words('JOIN')}(?=\s*\(\s*SELECT{_END})",
    rf"{_words('OVER')}(?=\s*\(\s*(?:PARTITION|ORDER)\s+BY{_END})",
    r"(?:(?<=\))|(?<=\) ))OVER(?=\s*\(\s*\))",
    rf"{_words('FILTER')}(?=\s*\(\s*WHERE{_END})",
    rf"{_words('THEN', 'INSERT')}(?=\s*{_NAMES}\s*VALUES\s*\()",
    rf"{_words('(?:TIME)', 'ZONE')}(?={APART}(?:[%$]|[EBXN]?'))",
    rf"{_words('(?:ILIKE)')}(?={APART}(?:[%$]|[EBXN]?'))",
    rf"{_words('(?:ESCAPE|UESCAPE|DELIMITER|QUOTE|ENCODING)')}(?={APART}E?')",
    # By the third argument, for the transaction only.
    r"(?<!\.)SET_CONFIG\(\s*'(?!(?:SEED|STANDARD_CONFORMING_STRINGS|CLIENT_ENCODING)')[\w.]+'\s*,\s*(?:%S|'[^'%]*')\s*,\s*TRUE\s*\)",
]
_TOKEN = re.compile(
    "|".join(
        [
            r"[\s,()\[\]]++",
            rf"{_QUOTED}(?!{_CALL})",
            rf"\.(?={_LETTER}|\")(?!{_PLAIN}{_CALL})|\.(?=\*)",
            # A parameter becomes one literal, or several. The literal must not join what stands beside it.
            rf"(?<![\w$\x80-\xff'\"-])%(?:[SBT]|\(\w+\)[SBT])(?![\w$.(%\x80-\xff\"\[])(?!{APART}['%])",
            r"\$\d++(?![\w$.%\x80-\xff])",
            r"(?:\d++(?:\.\d++)?|\.\d++)(?:E[+-]?\d++)?(?![\w$.%\x80-\xff'\"])",
            # With a new line between, the string behind one with backslashes goes on with backslashes.
            rf"E'(?:[^'\\%]++|''|\\[^%])*'(?!{APART}['%])",
            rf"(?:[BXN]|U&)?{_STRING}(?!{APART}%)",
            r"\$\$(?:[^$%]++|\$(?!\$))*\$\$",
            *_NO_CALLS,
            rf"(?<!\.)PG_CATALOG\.(?={_PLAIN}{_OPEN})",
            rf"(?!INTO{_END}){_PLAIN}(?!{_CALL})",
            COMMENT,
            r":(?!:)",
            rf";{APART}\Z",
            # Names that are called, types, operators, and all the rest at once: a text with many opening
            # quotes or comments that never end would otherwise take too long.
            rf"((?<!\.){_PLAIN}{_CALL}|(?<=CATALOG\.){_PLAIN}{_OPEN}|::{_PLAIN}(?!\s*\.)"
            rf"|{_PLAIN_OPERATOR}|{_OPERATOR}+|(?s:.+))",
        ]
    ).encode()
)
_CALLS_OVER = re.compile(rf"\bDISTINCT{APART}ON\b.*\bOVER\s*\(\s*\)".encode(), re.DOTALL)
_CASTS = re.compile(
    rf"\b(CAST){APART}\(|([()])|(?<!\.)\bAS{_END}{APART}({_NAME}\.?)|{_QUOTED}|{COMMENT}|{_STRING}".encode()
)


def read(sql: object, is_template: bool = False) -> int:
    """Return the effects that a text of PostgreSQL has on its session.

    :param sql: the text. As bytes, only ASCII can be known to leave nothing: the session decides where
        another character ends.
    :param is_template: whether the driver puts parameters in place of ``%s`` and ``%(name)s``. Each is
        expected to become one literal, or several in parentheses.
    :returns: bits of ``drivers/effects.py`` and of ``drivers/postgresql/effects.py``.
    """
    text = text_of(sql, is_template)
    if text is None:
        return UNKNOWN
    understood = isinstance(sql, str) or text.isascii()
    if understood and _is_clean(text) and not _is_suspect(sql, text):
        return effects_of(text)
    return effects_if_dirty(text)


def _is_clean(text: bytes) -> bool:
    """Return whether each token of a text is known."""
    if _TRANSACTION.fullmatch(text):
        return True
    head = _HEAD.match(text)
    if not head or not _KNOWN.issuperset(_TOKEN.findall(text, head.start("verb"))):
        return False
    return b"CAST" not in text or _casts_are_known(text)


def _casts_are_known(text: bytes) -> bool:
    """Return whether each CAST(... AS type) in a text is one to a known type."""
    in_cast = [False]
    for cast, parenthesis, name in _CASTS.findall(text):
        if cast or parenthesis == b"(":
            in_cast.append(bool(cast))
        elif parenthesis:
            del in_cast[-1:]
        elif name and in_cast and in_cast[-1] and b"::" + name not in _KNOWN:
            return False
    return True


def _is_suspect(sql: object, text: bytes) -> bool:
    """Return whether a text may leave something although each of its tokens is known."""
    # libpq sends a text up to its NUL, and PERCENT has to stand for a percent sign.
    original = sql.encode(errors="replace") if isinstance(sql, str) else sql
    if b"\0" in text or PERCENT in original:  # type: ignore[operator]  # bytes
        return True
    # Escapes in a name; a temporary table; an UPDATE that is a SET; DISTINCT ON (a) over(), which is a call.
    if b'U&"' in text or b"PG_TEMP" in text or (b"PG_SETTINGS" in text and b"UPDATE" in text):
        return True
    return b"DISTINCT" in text and bool(_CALLS_OVER.search(text))


#: The effects of texts, by whether the driver puts parameters into the text.
EFFECTS = memories(read)
