"""``manage.py pool_status``: the pools of this site on this host, and the borrowers of their connections."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import NotSupportedError, connections

from poollife import clock
from poollife.board.folder import NoBoard
from poollife.board.reader import TIMEOUTS_SHOWN, Board, read_board
from poollife.management.arguments import amount
from poollife.management.tables import Table, write_table
from poollife.monitoring.check import error_text
from poollife.monitoring.server import ServerSession, server_sessions


class Command(BaseCommand):
    """Show the pools of all processes of this site on this host, and the borrowers of their connections.

    No process is asked, so that one that hangs is shown as well. It has to run as the user of the processes.
    """

    help = (
        "Show the pools of all processes of this site on this host, and the borrowers of their connections."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--watch",
            type=amount,
            nargs="?",
            const=2.0,
            metavar="SECONDS",
            help="print again after so many seconds (default: 2), until Ctrl-C",
        )
        parser.add_argument(
            "--server",
            action="store_true",
            help="ask each server for its sessions, too, which borrows a connection: states, statements, and "
            "sessions that no process of this host has",
        )

        parser.add_argument(
            "--folder",
            type=Path,
            help="the folder of another site's or another user's board (default: this site's, in "
            "/dev/shm/poollife-<user id>, or in POOLLIFE_RUN_DIR)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            while True:
                where = options["folder"] and Path(options["folder"])
                self._print(read_board(where), server=options["server"], as_json=options["json"])
                if options["watch"] is None:
                    break
                time.sleep(options["watch"])
        except NoBoard as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            pass

    def _print(self, board: Board, *, server: bool, as_json: bool) -> None:
        sessions, silent = _server_sessions(board) if server else (None, {})
        if as_json:
            told = None if sessions is None else [asdict(each) for each in sessions]
            found = {**asdict(board), "server": told, "server_errors": silent}
            self.stdout.write(json.dumps(found, default=str))
            return
        for table in tables(board, sessions):
            write_table(self.stdout, table)
        for alias, error in silent.items():
            self.stderr.write(f"The server of {alias!r} does not say which sessions it has: {error}")
        for file in board.unreadable:
            self.stderr.write(f"Not readable in {board.folder}: {file}")


def tables(board: Board, sessions: list[ServerSession] | None) -> Iterator[Table]:
    """Yield the tables: processes, holders, the server's sessions, processes that died, and time-outs."""
    yield (
        f"Processes ({board.folder})",
        [
            "pid",
            "command",
            "since",
            "pool",
            "at",
            "limit",
            "out",
            "idle",
            "wait",
            "most",
            "timeouts",
            "errors",
        ],
        [
            [
                process.pid,
                process.command,
                _clock(process.started),
                pool.alias + (" (suspended)" if pool.suspended else ""),
                pool.server or pool.database,
                "none" if pool.limit is None else pool.limit,
                pool.out,
                pool.idle,
                pool.waiting,
                pool.max_waiting,
                pool.totals.counters["timeouts"],
                pool.totals.counters["connect_errors"],
            ]
            for process in board.processes
            for pool in process.pools
        ],
    )
    yield (
        "Borrowed, the longest first",
        ["held (s)", "pool", "session", "work", "thread", "pid"],
        [
            [f"{each.held:.1f}", each.alias, each.session, each.work, each.thread, each.pid]
            for each in board.holders
        ],
    )
    if sessions is not None:
        yield (
            "Sessions of the servers, the longest in their state first",
            ["pool", "session", "client", "state", "for (s)", "pid", "holder", "statement"],
            [
                [
                    *(each.alias, each.session, each.client, each.state, f"{each.seconds:.1f}"),
                    each.pid if each.pid is not None else "not of this host's pools",
                    *(each.holder, each.statement),
                ]
                for each in sessions
            ],
        )
    if board.deaths:
        yield (
            "Processes that died with borrowed connections",
            ["pid", "command", "since", "borrowed", "pool", "session", "work", "thread"],
            [
                [
                    *(death.pid, death.command, _clock(death.started), _clock(clock.wall() - holder.held)),
                    *(holder.alias, holder.session, holder.work, holder.thread),
                ]
                for death in board.deaths
                for holder in death.holders
            ],
        )
    if timeouts := board.timeouts:
        more = f", {TIMEOUTS_SHOWN} of {len(timeouts)}" if len(timeouts) > TIMEOUTS_SHOWN else ""
        yield (
            f"The last time-outs, the latest first{more}",
            ["at", "pool", "waited (s)", "work", "pid", "likeliest cause"],
            [
                [
                    *(_clock(each.at), each.alias, f"{each.waited:.1f}"),
                    *(each.work, each.pid, each.likeliest_cause),
                ]
                for each in timeouts[:TIMEOUTS_SHOWN]
            ],
        )


def _server_sessions(board: Board) -> tuple[list[ServerSession], dict[str, str]]:
    """Return the sessions of the servers, and by alias the errors of those that did not answer."""
    known = {pool.alias for process in board.processes for pool in process.pools}
    found: list[ServerSession] = []
    silent = {}
    for alias in sorted(known.intersection(connections)):
        try:
            found += server_sessions(alias, board.processes)
        except NotSupportedError:
            pass  # SQLite has none
        except Exception as error:  # of the driver, of a pool, or of a function that knows the password
            silent[alias] = error_text(error)
    return found, silent


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%d %b %H:%M:%S")
