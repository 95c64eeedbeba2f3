"""Statements of PostgreSQL: the numbers of sequences that they draw or read, and state that a reset leaves.

The module searches for words in the text. It does not see what a function, a trigger or a view does.
"""

from __future__ import annotations

import re
from functools import partial

from poollife.drivers.effects import LAST_NUMBER, LEAVES, PINS, READS, upper_text

# Three bits more for a statement that LEAVES state. A statement without LEAVES never has one of them.
#: The state that the statement leaves can't be removed by any reset: the session has to be closed.
UNRESETTABLE = 1 << 18
#: The statement may make, use or remove prepared statements. The reset needs ``DEALLOCATE ALL`` and ``DISCARD
#: PLANS``, and the driver's own memory of prepared statements may be wrong.
PREPARES = 1 << 19
#: The statement may add a type (CREATE EXTENSION, TYPE, DOMAIN). Django's adapters know the types that were
#: there when the session was opened: the sessions of the pool have to be replaced.
ADDS_TYPES = 1 << 20

#: ``%`` as an operator, or in a string: not the beginning of a parameter.
PERCENT = b"\x01"
COMMENT = r"(?:/\*(?:[^*/%]++|\*(?!/)|/(?!\*))*\*/|--[^\n\r%]*+(?=[\n\r]|\Z))"
APART = rf"\s*(?:{COMMENT}\s*)*"

#: Words for which a text is searched at all.
_WORTH_READING = re.compile(rb"CURRVAL|LASTVAL|NEXTVAL|PG_BACKEND_PID|INSERT|MERGE|COPY|DEFAULT")
#: Text that is not code: comments, strings, and names in quotes that are not called.
_NO_CODE = re.compile(
    rf"(?<![\w$])E'(?:[^'\\]++|''|\\.)*'?|'[^']*'?|(?!(?<=\w)\"{APART}\()\"(?!\w+\"{APART}\()[^\"]*\"?|/\*.*?(?:\*/|\Z)|--[^\n\r]*"
    r"|(?<![\w$])\$(\w*)\$.*?(?:\$\1\$|\Z)".encode(),
    re.DOTALL,
)
_QUOTE = r"\"?\s*\("
_READS_NUMBER = re.compile(rf"(?<![\w$])(?:CURRVAL|LASTVAL){_QUOTE}".encode())
_DRAWS_NUMBER = re.compile(
    rf"(?<![\w$])NEXTVAL{_QUOTE}|\b(?:INSERT|MERGE)\s+INTO\b|\A[\s(]*COPY\b|=\s*DEFAULT\b".encode()
)
#: Behind one of these the statement has drawn its numbers.
_HAS_DRAWN = re.compile(rf"\bRETURNING\b|(?<![\w$])NEXTVAL{_QUOTE}".encode())
_PINS = re.compile(rf"(?<![\w$])PG_BACKEND_PID{_QUOTE}".encode())
#: A definition: the functions in it are called later.
_DEFINITION = re.compile(rb"\s*(?:CREATE|ALTER)\b(?!.*\bTABLE\b.*\bAS\b)", re.DOTALL)

# These are searched for in the whole text, because the body of a DO is a string.
#: The seed of random() (also by the setting ``seed``), libraries, dblink's connections, an origin of
#: replication, the global variables of the procedural languages that have any, and notifications that came
#: before the UNLISTEN: the client keeps these.
_UNRESETTABLE = re.compile(
    rb"\bLISTEN\b|SETSEED|\bSEED\b|\bLOAD\s*(?:E?'|\$)|DBLINK|REPLICATION_ORIGIN|PLPERL|PLPYTHON|PLTCL|PLV8|U&\""
)
_ADDS_TYPES = re.compile(
    rf"\b(?:CREATE{APART}(?:EXTENSION|TYPE|DOMAIN)|ALTER{APART}EXTENSION)\b|U&\"".encode()
)
_PREPARES = re.compile(
    rf"(?:\A|;)[\s(]*(?:EXPLAIN\b[^;]*\b)?(?:EXECUTE|DEALLOCATE|DISCARD\s+ALL)\b"
    rf"|\bPREPARE\b(?!{APART}TRANSACTION\b)".encode()
)


text_of = partial(upper_text, percent=PERCENT)


def told_by(statement: object, effects: int) -> str:
    """Return the first function in a statement that reads one of these, for an error text."""
    found = _READS_NUMBER.search(code_of(text_of(statement, False) or b""))
    if found is None:
        return "This statement"
    return found[0].decode().rstrip('("\t\r\n ').lower() + "()"


def code_of(text: bytes) -> bytes:
    """Return a text without its comments, its strings, and most of its names in quotes."""
    return _NO_CODE.sub(b" ", text)


def effects_of(text: bytes) -> int:
    """Return the effects but LEAVES of a text that leaves nothing.

    :param text: the result of ``text_of()``.
    """
    if not _WORTH_READING.search(text):
        return 0
    told = sets = 0
    for part in code_of(text).split(b";"):
        if not _DEFINITION.match(part):  # the functions in it are called later
            told |= _told(part) & ~(sets << READS)
        if _DRAWS_NUMBER.search(part):
            sets |= LAST_NUMBER
    return told | sets


def _told(part: bytes) -> int:
    effects = PINS if _PINS.search(part) else 0
    drawn = _HAS_DRAWN.search(part)
    # RETURNING alone may be behind an UPDATE, which draws no number.
    before = part[: drawn.start()] if drawn and _DRAWS_NUMBER.search(part) else part
    return effects | (LAST_NUMBER << READS if _READS_NUMBER.search(before) else 0)


def effects_if_dirty(text: bytes) -> int:
    """Return the effects of a text that is not known to leave nothing.

    :param text: the result of ``text_of()``.
    """
    # A function, a DO or a CALL may draw a number.
    effects = effects_of(text) | LEAVES | LAST_NUMBER
    if _UNRESETTABLE.search(text):
        effects |= UNRESETTABLE
    if _ADDS_TYPES.search(text):
        effects |= ADDS_TYPES
    if _PREPARES.search(text) or _PREPARES.search(code_of(text)):
        effects |= PREPARES
    return effects
