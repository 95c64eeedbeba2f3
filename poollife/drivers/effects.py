"""Effects of a statement on its session, as far as its text shows them: the bits of one small int.

Every dialect describes its statements with these bits. Only the dialect knows which words of SQL mean which
bit. A borrower's next statement may run in another session than its last one. So a statement that READS a bit
is only sent if an earlier statement of the same lease has set that bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from poollife.drivers.comments import without_comments_around

#: The statement may leave state in the session, which then is reset at its return.
LEAVES = 1
#: The answer is of use only while the borrower keeps this session (its id, its counters).
PINS = 1 << 1

# The bits for what a statement sets for later statements of its session.
#: The outcome of the last statement. Each statement that was answered sets it.
LAST_STATEMENT = 1 << 2
#: The list of warnings and errors.
MESSAGES = 1 << 3
#: The number of rows found.
FOUND_ROWS = 1 << 4
#: The id generated last.
INSERT_ID = 1 << 5
#: The last write.
LAST_WRITE = 1 << 6
#: The number drawn last from a sequence.
LAST_NUMBER = 1 << 7
#: All bits that a statement may set.
SETS = LAST_STATEMENT | MESSAGES | FOUND_ROWS | INSERT_ID | LAST_WRITE | LAST_NUMBER
#: INSERT_ID, but only if the server's answer says so. The driver looks at the answer.
MAY_SET_INSERT_ID = 1 << 8
#: The statement updates a row if it exists already. The answer then has an id that INSERT_ID is not.
UPSERTS = 1 << 9

#: The shift to the bits of a statement that reads: with ``bit << READS``, its answer depends on what an
#: earlier statement with ``bit`` has set.
READS = 10
#: The bits that are looked at before a statement is sent.
CHECKED = LEAVES | PINS | (SETS << READS)
#: The effects of a text that is not understood.
UNKNOWN = LEAVES | SETS

#: The most characters of a text that is remembered. Longer texts (thousands of rows in one INSERT) are read
#: each time.
LONGEST_REMEMBERED = 8192
#: The most texts that are remembered, in two halves. When the newer half is full, it replaces the older one.
MOST_REMEMBERED = 2048

REFUSED = (
    "{told} tells what an earlier statement did in this session, but no such statement of this borrower "
    "has run here: the session that it ran in went back to the pool, or there was none. Use cursor.lastrowid "
    "or cursor.rowcount, ask with the same cursor before it is closed, or have transaction.atomic() or "
    "auto_close_db() around both statements."
)


def upper_text(sql: object, is_template: bool, percent: bytes) -> bytes | None:
    """Return a statement's text in upper case, or None if the statement is no text.

    :param sql: the statement.
    :param is_template: whether the driver puts parameters into it: then two percent signs are one.
    :param percent: the character for a percent sign that is not the beginning of a parameter.
    """
    if isinstance(sql, str):
        text = sql.encode(errors="replace")
    elif isinstance(sql, bytes | bytearray):
        text = bytes(sql)
    else:
        return None
    # As bytes, because bytes.upper() changes ASCII only.
    return text.replace(b"%%" if is_template else b"%", percent).upper()


class Memory(dict[object, int]):
    """Effects by text: ``memory[text]`` is one look-up for a text that was read of late.

    Synchronization: there is no lock. Threads that meet the same new text at once read it twice.
    """

    def __init__(
        self,
        read: Callable[[object], int],
        simplify: Callable[[object], object] = without_comments_around,
    ) -> None:
        """Take the function of a dialect.

        :param read: returns the effects of a text that is not remembered.
        :param simplify: returns a text without its parts that differ each time and have no effect, or the
            text itself if it has no such parts.
        """
        super().__init__()
        self._read = read
        self._simplify = simplify
        self._older: dict[object, int] = {}

    def __missing__(self, text: object) -> int:
        if (simple := self._simplify(text)) is not text and not (effects := self[simple]) & LEAVES:
            return effects
        if (found := self._older.get(text)) is not None:
            effects = found
        else:
            effects = self._read(text)
        if not isinstance(text, str) or len(text) <= LONGEST_REMEMBERED:
            if len(self) >= MOST_REMEMBERED // 2:
                self._older = dict(self)
                self.clear()
            self[text] = effects
        return effects


def memories(read: Callable[..., int]) -> dict[bool, Memory]:
    """Return a memory for each kind of text, by whether the driver puts parameters into the text.

    :param read: returns the effects of a text, with the argument ``is_template``.
    """
    return {
        is_template: Memory(
            partial(read, is_template=is_template), partial(without_comments_around, is_template=is_template)
        )
        for is_template in (False, True)
    }
