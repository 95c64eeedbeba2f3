"""Forks while another thread's handshake takes longer than a fork waits for.

Arguments: the name of the case, the settings of a database, and a folder. Prints its findings. The servers in
here are stubs: one accepts connections and never says a word, the other doesn't even accept them.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from django.db import OperationalError, connections

from tests.support.programs import children, sockets
from tests.support.programs.databases import session, set_up

Settings = dict[str, Any]
Report = dict[str, Any]

#: Seconds that a fork waits, instead of the package's own.
PATIENCE = 0.2


def deaf_tcp(settings: Settings, folder: str) -> Report:
    """It accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stub = {**settings, "HOST": "127.0.0.1", "PORT": str(listener.getsockname()[1])}
        return fork_meanwhile(settings, stub, listener.accept)


def deaf_socket(settings: Settings, folder: str) -> Report:
    """The same on a unix socket."""
    with listening(path := f"{folder}/stub.sock") as listener:
        return fork_meanwhile(settings, {**settings, "HOST": path, "PORT": ""}, listener.accept)


def deaf_default_socket(settings: Settings, folder: str) -> Report:
    """The same where no HOST is set: the driver's library knows a path of its own."""
    os.environ["MYSQL_UNIX_PORT"] = path = f"{folder}/stub.sock"
    with listening(path) as listener:
        return fork_meanwhile(settings, {**settings, "HOST": "", "PORT": ""}, listener.accept, end=path)


def listening(path: str) -> socket.socket:
    """A server on a unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def full_backlog(settings: Settings, folder: str) -> Report:
    """Nobody answers the connecting thread; its connection is established after the fork."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]

        def wait_until_under_way() -> None:
            # The kernel tells nobody that it has sent a SYN.
            while len(sockets.to_port(port)) < 2:
                threading.Event().wait(0.01)

        with socket.create_connection(listener.getsockname()) as filler:

            def accept() -> Any:
                filler.close()
                listener.accept()[0].close()
                return listener.accept()

            stub = {**settings, "HOST": "127.0.0.1", "PORT": str(port)}
            return fork_meanwhile(settings, stub, wait_until_under_way, accept)


def fork_meanwhile(
    settings: Settings,
    stub: Settings,
    wait: Callable[[], Any],
    accept: Callable[[], Any] | None = None,
    end: str = "",
) -> Report:
    """Fork when a thread is in its handshake with the stub.

    :param wait: returns when it is; maybe what ``accept`` returns.
    :param accept: ends in the stub having a connection.
    :param end: of the descriptions of sockets to the stub, where its settings don't say it.
    """
    # A stub that has hung up once does not answer a second attempt either.
    set_up({"default": settings, "stub": {**stub, "OPTIONS": {}, "POOL": {"outage_wait": 0}}})
    mine = session()
    from poollife.process import atfork

    atfork.HANDSHAKE_WAIT = PATIENCE
    errors: list[int] = []

    def connect() -> None:
        try:
            session("stub")
        except OperationalError as error:
            errors.append(error.args[0])

    thread = threading.Thread(target=connect)
    thread.start()
    accepted = wait()
    report = children.fork(lambda: {"own session": session() > mine}, lambda: os._exit(0)).finish()
    # The stub's own ends lead elsewhere.
    ends = (end or sockets.address(stub), sockets.address(settings))
    report["inherited"] = [where for where in report["inherited"] if where.endswith(ends)]
    unfinished = errors == []
    if accept:
        accepted = accept()
    accepted[0].close()
    thread.join()
    connections["default"].close()
    return {"child": report, "unfinished": unfinished, "errors": errors, "same session": session() == mine}


if __name__ == "__main__":
    name, *arguments = map(json.loads, sys.argv[1:])
    print(json.dumps(globals()[name](*arguments)))
