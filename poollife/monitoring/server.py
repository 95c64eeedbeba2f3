"""The sessions that a server has, as it tells them itself."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import NotSupportedError, connections

from poollife.board.layout import encoded, server_text, text
from poollife.board.views import Process

#: Line breaks of statements become spaces.
BREAKS = dict.fromkeys(map(ord, "\n\r\t"), " ")


def cleaned(value: object) -> str:
    """Return a text of the server's without characters that control a terminal; None: an empty one."""
    return "" if value is None else text(encoded(str(value).translate(BREAKS)))


@dataclass(frozen=True, slots=True)
class ServerSession:
    """A session of this alias's user and database, as the server sees it."""

    alias: str
    session: int
    user: str
    #: The client's address.
    client: str
    state: str
    #: Seconds in this state.
    seconds: float
    #: The statement that it runs, or ran last, cut after 200 characters.
    statement: str
    #: The process that has it in a pool; None: no process on this host that the board knows.
    pid: int | None
    #: The request, task or block that has borrowed it, or the thread; None: it is idle, or of no pool.
    holder: str | None


def server_sessions(alias: str, processes: list[Process]) -> list[ServerSession]:
    """Ask the server for its sessions, and join them with what the board says.

    :param alias: a key of ``DATABASES``. One session is borrowed for the question.
    :param processes: those of the board.
    :returns: the longest in their state first, without the session that asks.
    :raises NotSupportedError: the database has no sessions to tell, as SQLite has not.
    """
    wrapper = connections[alias]
    question = getattr(getattr(wrapper, "driver", None), "SESSIONS", None)
    if question is None:
        raise NotSupportedError(f"The server of {alias!r} can't be asked for its sessions.")
    with wrapper.cursor() as cursor:
        cursor.execute(question)
        rows = cursor.fetchall()
    place = server_text(wrapper.pool_key().place)  # type: ignore[attr-defined]
    held = {
        holder.session: (holder.pid, holder.work or f"thread {holder.thread}")
        for process in processes
        for holder in process.holders
        if holder.server == place
    }
    idle = {
        session: process.pid
        for process in processes
        for pool in process.pools
        if pool.server == place
        for session in pool.idle_sessions
    }
    found = []
    for session, user, client, state, seconds, statement in rows:
        pid, holder = held.get(session, (idle.get(session), None))
        found.append(
            ServerSession(
                alias=alias,
                session=session,
                user=cleaned(user),
                client=cleaned(client),
                state=cleaned(state),
                seconds=float(seconds or 0),
                statement=cleaned(statement),
                pid=pid,
                holder=holder,
            )
        )
    return sorted(found, key=lambda each: -each.seconds)
