"""A network that swallows all packets, without the drivers' own timeouts.

To be run in a network namespace of its own, where nobody else misses the loopback device: with that down,
what is sent goes nowhere, and neither end is told.

Arguments: the ENGINE, OPTIONS, "tls" or "tcp", a folder, and whether gevent patches the process.
"""

from __future__ import annotations

import sys

if sys.argv[-1] == "true":
    from gevent import monkey

    monkey.patch_all()

import fcntl
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import OperationalError, connections

from servers import Certificates, MariaDB
from tests.support.counting import pool_of
from tests.support.programs.databases import ask, session, set_up

#: Seconds after which something has not happened.
PATIENCE = 30.0
#: One whose sessions the kernel ends, one whose sessions it leaves alone, and one that pings them itself.
POOLS: dict[str, dict[str, Any]] = {
    "limited": {"network_timeout": 1, "outage_wait": 0},
    "unlimited": {"network_timeout": None},
    "pinged": {"network_timeout": None, "ping_idle": 0, "timeout": 1},
}


class Loopback:
    """The network."""

    def up(self) -> None:
        self._set(lambda flags: flags | 1)

    def down(self) -> None:
        self._set(lambda flags: flags & ~1)

    @contextmanager
    def deaf(self) -> Iterator[None]:
        self.down()
        try:
            yield
        finally:
            self.up()

    @staticmethod
    def _set(change: Callable[[int], int]) -> None:
        name, get, put = b"lo", 0x8913, 0x8914  # SIOCGIFFLAGS, SIOCSIFFLAGS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, get, struct.pack("16sh14x", name, 0))
            flags = struct.unpack("16sh14x", answer)[1]
            fcntl.ioctl(any_socket, put, struct.pack("16sh14x", name, change(flags)))


class Asker(threading.Thread):
    """Asks one question of a session that it has borrowed before."""

    def __init__(self, alias: str, sql: str, *, at_once: bool) -> None:
        super().__init__(daemon=True)
        self._alias, self._sql = alias, sql
        self._go, self.has = threading.Event(), threading.Event()
        if at_once:
            self._go.set()
        #: What came of it.
        self.outcome: Any = None
        self.start()
        self.has.wait(PATIENCE)

    def run(self) -> None:
        connections[self._alias].ensure_connection()
        connections[self._alias].connection.cursor().close()
        self.has.set()
        self._go.wait()
        self.outcome = asked(self._sql, self._alias)

    def go(self) -> None:
        self._go.set()

    def end(self) -> Any:
        self.join(PATIENCE)
        return self.outcome


def asked(sql: str, using: str) -> Any:
    """The answer, or the number of its error."""
    try:
        return ask(sql, using=using)
    except OperationalError as error:
        return error.args[0]
    finally:
        connections[using].close()


def until(happened: Callable[[], Any]) -> bool:
    """Wait for it, bounded; whether it has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(happened())


def at_work(server: MariaDB, sql: str) -> bool:
    return any(each.info == sql for each in server.sessions())


def statements(server: MariaDB, network: Loopback) -> dict[str, Any]:
    """Those that ran when it happened, and those that were sent afterwards."""
    running = {"limited": "SELECT SLEEP(3600)", "unlimited": "SELECT 7 + SLEEP(3)"}
    ran = {alias: Asker(alias, sql, at_once=True) for alias, sql in running.items()}
    sent = {alias: Asker(alias, "SELECT 8", at_once=False) for alias in running}
    for sql in running.values():
        assert until(lambda sql=sql: at_work(server, sql))  # type: ignore[misc]  # bound in time
    with network.deaf():
        for asker in sent.values():
            asker.go()
        report = {"ran": ran["limited"].end(), "sent": sent["limited"].end()}
        report["others wait"] = ran["unlimited"].is_alive() and sent["unlimited"].is_alive()
    # Before the others: it has nothing left that it could use.
    report["first afterwards"] = asked("SELECT 9", "limited")
    report["others"] = [ran["unlimited"].end(), sent["unlimited"].end()]
    return report


def idle_sessions(network: Loopback) -> dict[str, Any]:
    """Which of them the cheap look finds dead, and what the next borrowers get."""
    before, drivers = {}, {}
    for alias in ("limited", "unlimited"):
        before[alias] = session(alias)
        drivers[alias] = connections[alias].connection
        connections[alias].close()
    with network.deaf():
        noticed = until(drivers["limited"].closed_by_server)
        report: dict[str, Any] = {"noticed": [noticed, drivers["unlimited"].closed_by_server()]}
        # A new one can't be opened, either.
        report["meanwhile"] = [asked("SELECT 9", "limited") for _ in range(2)]
    report["afterwards"] = until(lambda: asked("SELECT 9", "limited") == 9)
    report["replaced"] = [session(alias) != before[alias] for alias in before]
    connections.close_all()
    return report


def own_pings(network: Loopback) -> dict[str, Any]:
    """No time of the kernel's or the driver's bounds them. The close waits for nothing either."""
    before = session("pinged")
    connections["pinged"].close()
    with network.deaf():
        report: dict[str, Any] = {"error": asked("SELECT 9", "pinged"), "idle": pool_of("pinged").idle}
    report["afterwards"] = until(lambda: asked("SELECT 9", "pinged") == 9)
    report["replaced"] = session("pinged") != before
    connections.close_all()
    return report


def main(engine: str, options: dict[str, Any], via: Any, folder: str, *_: Any) -> None:
    # What it says of a server that is away is right, and nothing else may come by standard error.
    logging.getLogger("poollife").addHandler(logging.NullHandler())
    network = Loopback()
    network.up()
    certificates = Certificates(Path(folder)) if via == "tls" else None
    with MariaDB(certificates=certificates) as server:
        server.create_database("shop")
        entry = {**server.database("shop", via=via), "ENGINE": engine}
        entry["OPTIONS"] = {"connect_timeout": 1, **options, **entry["OPTIONS"]}
        set_up({"default": entry, **{alias: {**entry, "POOL": pool} for alias, pool in POOLS.items()}})
        report: dict[str, Any] = {
            # Its server's kernel answers the probes of our own, however long it takes.
            "long": asked("SELECT 6 + SLEEP(3)", "limited"),
            "statements": statements(server, network),
            "idle sessions": idle_sessions(network),
            "own pings": own_pings(network),
            "out": [pool_of(alias).out for alias in POOLS],
        }
        for alias in POOLS:
            pool_of(alias).drain("the program is over")
    print(json.dumps(report))


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
