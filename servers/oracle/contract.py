"""The session's view of the server, and of a statement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from servers.oracle import wire
from servers.oracle.columns import Column
from servers.oracle.database import Store
from servers.oracle.messages import Bind


class Owner(Protocol):
    """The part of the server that a session needs. A session has no type: its module imports this one."""

    store: Store
    #: The most sessions; then a listener refuses with 12516.
    limit: int

    def enter(self, session: Any) -> int:
        """Note a new session, and return its number."""

    def leave(self, session: Any) -> None:
        """Note the end of a session."""

    def log(self, session: int, call: str, text: str = "") -> None:
        """Note a call that has arrived."""

    def is_full(self) -> bool:
        """Return whether there is no room for another session."""


@dataclass
class Cursor:
    """A statement of a client's."""

    sql: str
    binds: list[Bind] = field(default_factory=list)
    #: The columns as they were described last, and rows that were not fetched yet.
    columns: list[Column] | None = None
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def has_lobs(self) -> bool:
        return any(column.data_type in wire.LOBS for column in self.columns or ())
