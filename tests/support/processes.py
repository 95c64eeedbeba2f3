"""Programs whose processes come and go: their database, how one starts, and what is counted of it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import MariaDB, PostgreSQL, PrivateServer, Via
from tests.support import ROOT

#: The kinds of servers, by the names that tools have for them.
SERVERS: dict[str, type[MariaDB | PostgreSQL]] = {"mysql": MariaDB, "postgresql": PostgreSQL}
ENGINES: dict[type[PrivateServer], str] = {
    MariaDB: "poollife.backends.mysql",
    PostgreSQL: "poollife.backends.postgresql",
}
#: Of one traceback, in what a test says.
TRACEBACK_LINES = 80


def entry(server: PrivateServer, name: str, *, via: Via = "tcp", **more: Any) -> dict[str, Any]:
    """Return the settings of a database, for a program.

    :param name: the database.
    :param via: the kind of connection.
    :param more: further keys of the entry, such as ``POOL``.
    """
    return {**server.database(name, via=via), "ENGINE": ENGINES[type(server)], **more}


def make_table(server: PrivateServer, name: str) -> None:
    """Make the table ``rows_`` in a database, for numbers that the site's forks insert."""
    server.execute("CREATE TABLE rows_ (number INTEGER PRIMARY KEY)", database=name)
    server.execute(f"GRANT ALL ON rows_ TO {server.user}", database=name)


def start_program(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start one in the project's folder. It has a session of its own, by which all of it can be killed.

    :param log: gets all that it prints.
    :param environment: None: this process's.
    """
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


@dataclass(frozen=True)
class Counts:
    """What came of one run."""

    requests: int
    #: Processes that answered, mules and spoolers among them.
    processes: int
    parent_sessions: int
    #: Of those, in use still when all the workers had come and gone.
    alive: int
    # From here on all are mistakes.

    #: Of the parent's, in all children together, before they used the database.
    inherited_sockets: int
    wrong_answers: int
    over_limit: int
    #: Sessions whose client was gone without a quit packet, as the server counts them.
    aborted: int
    #: What the log has of them; see ``tracebacks_in()``.
    tracebacks: tuple[str, ...]
    #: Requests without an answer, asked again about another number. No mistake: their worker was told to end.
    repeated: int = 0

    @property
    def harmed(self) -> bool:
        """Whether there is a mistake, or a session of the parent's was lost."""
        mistakes = (
            self.inherited_sockets,
            self.wrong_answers,
            self.over_limit,
            self.aborted,
            self.tracebacks,
        )
        return self.alive < self.parent_sessions or any(mistakes)


def tracebacks_in(log: str, expected: str = "") -> tuple[str, ...]:
    """Return the tracebacks in a log, each with the lines behind it: so a test that fails says why.

    :param expected: a line that one traceback has which is no mistake; "": there is none of that kind.
    """
    parts = log.split("Traceback")[1:]
    mistakes = [part for part in parts if not expected or expected not in part]
    # Two processes that write at once may mix their lines, and then one part has both of the expected ones.
    number = len(parts) - (log.count(expected) if expected else 0)
    lines = [f"Traceback{part}".splitlines()[:TRACEBACK_LINES] for part in mistakes[:number]]
    return tuple(map("\n".join, lines))


def is_right(answer: dict[str, Any]) -> bool:
    """Whether it is the answer to its question, and a forked child that it is about did well, too."""
    child = answer.get("child", {"right": True, "status": 0})
    mine: bool = answer["right"] and answer.get("same session", True)
    return mine and child.get("right", False) and child["status"] == 0
