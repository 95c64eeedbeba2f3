"""Sessions behind a transaction pooler: what must not run there, and what to use in its place.

A transaction pooler, such as PgBouncer with ``pool_mode = transaction``, gives each transaction whichever of
its sessions is free. What a statement leaves in that session, beyond its transaction, reaches the next client
of the pooler: another process, or another site. And the client that has left it does not find it again.

The module searches for words in the text, as ``effects.py`` does, and only in a statement that is not known
to leave nothing. So a setting that a function, a trigger or a text that the server executes makes is not
seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from poollife.drivers.postgresql.effects import code_of, text_of

REFUSED = (
    "This statement leaves something in its session that outlives the transaction. Behind a transaction "
    "pooler (POOL['behind']) the next client of the pooler would find it, and this borrower would not. "
    "{cure}."
)
REFUSED_READ = (
    "{told} tells what an earlier statement did in its session. Behind a transaction pooler (POOL['behind']) "
    "each transaction has another session. Put both statements into one transaction.atomic(), or use "
    "RETURNING."
)
REFUSED_CURSOR = (
    "A cursor WITH HOLD outlives its transaction. Behind a transaction pooler (POOL['behind']) it stays in a "
    "session that this borrower does not get again. Open it in transaction.atomic(), or set "
    "DISABLE_SERVER_SIDE_CURSORS to True in DATABASES."
)
REFUSED_ATTRIBUTE = (
    "psycopg2 sends this as a SET for the whole session. Behind a transaction pooler (POOL['behind']) the "
    "next client of the pooler would find it. Use SET TRANSACTION in transaction.atomic()."
)

_CALL = r"\"?\s*\("
#: The statement with which Django sets the time zone. The pooler has to keep that for each client, as
#: PgBouncer does. A session whose time zone a borrower changes by it is closed at its return.
_TIME_ZONE = re.compile(
    rb"\s*SELECT\s+SET_CONFIG\(\s*'TIMEZONE'\s*,\s*(?:%S|'[^']*')\s*,\s*FALSE\s*\)\s*;?\s*"
)
#: The arguments of a call of set_config() that ends with its transaction. The strings are taken out.
_UNTIL_COMMIT = r"[^(),]*,[^(),]*,\s*TRUE\s*\)"
_LOCAL = "Use SET LOCAL, or set_config(..., true), in transaction.atomic()"
_PAST_IT = "Use an alias that leads past the pooler"

#: What a statement may leave, and the cure. Each statement of a text is searched by itself, without its
#: comments and strings. A definition is only searched for the expressions that begin with CREATE.
_LEFT: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(expression.encode(), re.DOTALL), cure)
    for expression, cure in (
        (r"\A[\s(]*SET\b(?!\s+(?:LOCAL|CONSTRAINTS|TRANSACTION)\b)", _LOCAL),
        (r"\A[\s(]*(?:RESET|DISCARD)\b", f"{_LOCAL}: that needs no RESET"),
        (rf"(?<![\w$])SET_CONFIG{_CALL}(?!{_UNTIL_COMMIT})", _LOCAL),
        (r"\bUPDATE\s+(?:ONLY\s+)?(?:PG_CATALOG\s*\.\s*)?PG_SETTINGS\b", _LOCAL),
        (rf"(?<![\w$])SETSEED{_CALL}|\A\s*SET\s+LOCAL\s+SEED\b", "Draw the numbers in Python"),
        (
            rf"(?<![\w$])PG_(?:TRY_)?ADVISORY_(?:UN)?LOCK(?:_SHARED|_ALL)?{_CALL}",
            "Use pg_advisory_xact_lock() in transaction.atomic()",
        ),
        (
            r"\A\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:LOCAL|GLOBAL)\s+)?(?:TEMP|TEMPORARY)\b"
            r"(?!.*\bON\s+COMMIT\s+DROP\b)|\A\s*CREATE\b[^(]*\bPG_TEMP\s*\.",
            "Use CREATE TEMPORARY TABLE ... ON COMMIT DROP in transaction.atomic()",
        ),
        (
            r"(?<!INSERT)(?<!MERGE)(?<!\s)\s+INTO\s+(?:(?:LOCAL|GLOBAL)\s+)?(?:TEMP|TEMPORARY)\b\s*(?!\()\S",
            "Use CREATE TEMPORARY TABLE ... ON COMMIT DROP AS SELECT ... in transaction.atomic()",
        ),
        (r"\A\s*DECLARE\b.*\bWITH\s+HOLD\b", "Declare it WITHOUT HOLD in transaction.atomic()"),
        (r"\A\s*(?:LISTEN|UNLISTEN)\b", _PAST_IT),
        (r"\A[\s(]*(?:PREPARE\b(?!\s+TRANSACTION\b)|EXECUTE\b|DEALLOCATE\b)", "Send the statement itself"),
        (r"\A\s*LOAD\b", "Use session_preload_libraries, for the role or the database"),
        (rf"(?<![\w$])(?:DBLINK_CONNECT\w*|PG_REPLICATION_ORIGIN_SESSION_SETUP){_CALL}", _PAST_IT),
    )
)
#: Words without which a text is not searched: most functions of a site's own come with none of them.
_WORTH_READING = re.compile(
    rb"\bSET\b|RESET|SET_CONFIG|SETSEED|PG_SETTINGS|ADVISORY|TEMP|\bHOLD\b|LISTEN|PREPARE|EXECUTE|DEALLOCATE"
    rb"|DISCARD|\bLOAD\b|DBLINK|REPLICATION_ORIGIN"
)
_BLOCK = re.compile(rb"\A\s*DO\b")
#: Words in a block behind which a statement begins. EXECUTE runs a text there, which is not read.
_BLOCK_WORDS = re.compile(rb"\b(?:BEGIN|THEN|ELSE|LOOP|PERFORM|EXECUTE)\b")
_DEFINITION = re.compile(rb"\A\s*(?:CREATE|ALTER)\b(?!.*\bTABLE\b.*\bAS\b)", re.DOTALL)


def cure_for(statement: object, is_template: bool) -> str | None:
    """Return the cure for a statement that leaves something in its session; None: it is not known to.

    :param statement: the text.
    :param is_template: whether the driver puts parameters into it.
    """
    text = text_of(statement, is_template)
    if text is None or not _WORTH_READING.search(text) or _TIME_ZONE.fullmatch(text):
        return None
    code = code_of(text)
    if _BLOCK.match(code):
        code = _BLOCK_WORDS.sub(b";", code_of(_without_quotes(text)))
    return next((cure for part in code.split(b";") if (cure := _cure_for_part(part))), None)


def _without_quotes(block: bytes) -> bytes:
    """Return a DO without the quotes around its body."""
    if b"$" in block:
        return re.sub(rb"\$\w*\$", b";", block)
    return block.replace(b"''", b"\0").replace(b"'", b";").replace(b"\0", b"'")


def _cure_for_part(code: bytes) -> str | None:
    is_definition = _DEFINITION.match(code)
    for expression, cure in _LEFT:
        if (found := expression.search(code)) and not (is_definition and b"CREATE" not in found[0]):
            return cure
    return None


def objections(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of an entry of ``DATABASES`` by which Django would leave something in a session.

    :param entry: the entry.
    :returns: each reason, with its cure, for people.
    """
    options = entry.get("OPTIONS") or {}
    found = []
    if not entry.get("DISABLE_SERVER_SIDE_CURSORS"):
        found.append(
            (
                "QuerySet.iterator() would open cursors that outlive their transaction",
                'Set "DISABLE_SERVER_SIDE_CURSORS": True in this entry',
            )
        )
    if options.get("prepare_threshold") is not None:
        found.append(
            (
                "OPTIONS has 'prepare_threshold', and a prepared statement stays in one session",
                "Leave it out",
            )
        )
    if options.get("assume_role"):
        found.append(
            (
                "OPTIONS has 'assume_role', and a SET ROLE stays in one session",
                "Log in as a role that may do all of it, or use ALTER ROLE ... SET role at the server",
            )
        )
    return found
