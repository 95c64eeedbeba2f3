"""Effects of a statement on its session, as far as its text shows them: the bits of one small int.

Every dialect says with these what its statements do; which words of SQL mean which bit is the dialect's own.
A borrower may find itself in another session than the one that its last statement ran in. So a statement
that READS a bit is only sent if a statement of the same lease has set that bit before.
"""

from __future__ import annotations

from collections.abc import Callable

#: Something may be left behind in the session: it is reset when it comes back.
LEAVES = 1
#: The answer is of use only as long as its borrower keeps this session (its id, its counters).
PINS = 1 << 1

#: What a statement sets for later ones of its session. Each that was answered: how that went.
LAST_STATEMENT = 1 << 2
#: The list of warnings and errors is its own.
MESSAGES = 1 << 3
#: The number of rows found is its own.
FOUND_ROWS = 1 << 4
#: The id generated last is its own.
INSERT_ID = 1 << 5
#: The last write is its own.
LAST_WRITE = 1 << 6
#: The number drawn last from a sequence is its own.
LAST_NUMBER = 1 << 7
#: All of these.
SETS = LAST_STATEMENT | MESSAGES | FOUND_ROWS | INSERT_ID | LAST_WRITE | LAST_NUMBER
#: Whether it has set INSERT_ID depends on the server's answer, which the driver looks at.
MAY_SET_INSERT_ID = 1 << 8
#: It updates a row that is there already. The answer then has an id that INSERT_ID is not.
UPSERTS = 1 << 9

#: ``bit << READS``: the answer tells what an earlier statement with that bit has set.
READS = 10
#: What is looked at before a statement is sent.
CHECKED = LEAVES | PINS | (SETS << READS)
#: A text that says nothing.
UNKNOWN = LEAVES | SETS

#: Longer texts (thousands of rows in one INSERT) are read each time.
LONGEST_REMEMBERED = 8192
#: How many texts are kept; the least recently read half of them is not.
MOST_REMEMBERED = 2048

REFUSED = (
    "{told} tells what an earlier statement did in this session, but no such statement of this borrower "
    "has run here: the session that it ran in went back to the pool, or there was none. Use cursor.lastrowid "
    "or cursor.rowcount, ask with the same cursor before it is closed, or have transaction.atomic() or "
    "auto_close_db() around both statements."
)


class Memory(dict[object, int]):
    """Effects by text: ``memory[text]`` is one look-up where that text was read of late.

    No lock: threads that come upon the same text read it twice.
    """

    def __init__(self, read: Callable[[object], int], simplify: Callable[[object], object]) -> None:
        """
        :param read: makes the effects of a text that is not remembered.
        :param simplify: takes from a text what differs each time and means nothing, if anything.
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
