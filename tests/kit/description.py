"""The description of a driver: all that the tests of the kit have to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import DatabaseError, OperationalError

from servers import Via
from tests.kit.half_read import HalfRead


class Leaving(NamedTuple):
    """A kind of state that a borrower may leave in a session."""

    #: The statements that leave it.
    leave: tuple[str, ...]
    #: A question, and its answer in a clean session.
    ask: str
    clean: Any


#: Returns the number of questions that the server gets while a function runs.
Count = Callable[[Callable[[], object]], int]


@dataclass(frozen=True)
class Backend:
    """A driver, as far as the tests of the invariants differ from one to the other."""

    name: str
    engine: str
    #: The fixture of its server; None: a file.
    server: str | None
    #: A SELECT of the session's number at the server; None: there is no server.
    session_id: str | None
    #: A SELECT of the number of statements that wait for a lock; None: the database has no locks of rows.
    waiting: str | None
    half_read: Mapping[str, HalfRead]
    leaves: Mapping[str, Leaving]
    #: Statements that leave nothing: no reset follows.
    clean: tuple[str, ...] = (
        "SELECT 1",
        "SELECT name FROM kit WHERE id = 1",
        "INSERT INTO kit (id, name) VALUES (2, 'two')",
        "UPDATE kit SET name = 'TWO' WHERE id = 2",
        "DELETE FROM kit WHERE id = 2",
    )
    #: Counts at the server: what an entry needs for it, and a function that counts. None: there is no server.
    counting: Callable[[Any], AbstractContextManager[tuple[dict[str, Any], Count]]] | None = None
    #: Django's class of the error by which a borrower learns that its session was lost.
    lost: type[DatabaseError] = OperationalError
    #: Whether a session that may have state in it is reset; otherwise it is closed.
    resets: bool = True
    #: Whether a child may use the database if its parent had a transaction or an open cursor at the fork.
    serves_children: bool = True
    #: The kinds of connections that differ in what a child can do to its parent's session.
    vias: tuple[Via, ...] = ("tcp",)
    #: More keys of an entry of DATABASES.
    entry: Mapping[str, str] = field(default_factory=dict)
    #: Whether the driver works in the children of a process that has used it.
    outlives_forks: bool = True

    def __str__(self) -> str:
        return self.name
