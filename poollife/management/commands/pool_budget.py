"""``manage.py pool_budget``: the connections that this site may open, and those that its servers allow."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from poollife.board.folder import NoBoard
from poollife.board.reader import Board, read_board
from poollife.board.views import Process
from poollife.management.arguments import MOST, amount, number
from poollife.management.tables import Table, write_table
from poollife.monitoring import budget
from poollife.monitoring.demand import DEPLOYMENT, Plan, Server, Size, Use, limit_of, servers, size_of, use_of


class Command(BaseCommand):
    """Compare the connections that this site may open with what its servers allow, and size its pools.

    The exit status is 1 if a deployment does not fit, or if a server does not answer.
    """

    help = "Compare the connections that this site may open with what its servers allow, and size its pools."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--hosts", type=number, default=1, help="hosts that run the site (default: 1)")
        parser.add_argument(
            "--processes",
            type=number,
            help="processes of the site on each host (default: those that the board of this host shows now)",
        )
        parser.add_argument(
            "--threads", type=number, help="threads of each process that query; for the size of the pools"
        )
        parser.add_argument(
            "--asgi", action="store_true", help="any number of checkouts may come at once, not one a thread"
        )
        parser.add_argument(
            "--rate",
            type=amount,
            help="checkouts per second of a process (default: the mean since the processes began)",
        )
        parser.add_argument(
            "--hold",
            type=amount,
            metavar="SECONDS",
            help="mean seconds from checkout to return (default: by the board, which needs POOL['stats'])",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--folder", type=Path, help="the folder of another board, as in pool_status")

    def handle(self, *args: Any, **options: Any) -> None:
        board = self._board(options["folder"])
        # This command is on the board itself if the site queries while it is imported.
        others = [each for each in board.processes if each.pid != os.getpid()] if board else []
        processes = options["processes"] or sum(bool(each.pools) for each in others)
        if not processes:
            raise CommandError(
                "--processes is needed: the board of this host shows no process of this site with a pool"
            )
        plan = Plan(options["hosts"], processes, options["threads"])
        sizes, unknown = _sizes(board, others, options)
        found = servers(plan)
        failures = [text for server in found for text in _failures(server)]
        if options["json"]:
            report = {
                **asdict(plan),
                "servers": [_report(server) for server in found],
                "sizes": [asdict(size) for size in sizes],
                "sizes_unknown": unknown,
                "fits": not failures,
            }
            self.stdout.write(json.dumps(report))
        else:
            for table in tables(plan, found, sizes):
                write_table(self.stdout, table)
            for alias, reason in unknown.items():
                self.stdout.write(f"No size for {alias!r}: {reason}")
        if failures:
            raise CommandError("\n".join(failures), returncode=1)

    def _board(self, folder: Path | None) -> Board | None:
        try:
            return read_board(folder)
        except NoBoard as error:
            if folder:
                raise CommandError(str(error)) from error
            return None


def _sizes(
    board: Board | None, processes: list[Process], options: dict[str, Any]
) -> tuple[list[Size], dict[str, str]]:
    """Return the size of each alias with a pool, and the reasons why others have none."""
    threads = options["threads"]
    sizes, unknown = [], {}
    for alias in connections:
        if limit_of(alias) is None:
            continue
        counted = use_of(alias, board, processes)
        # Waits lower a rate that was measured. A rate that is given is the one without waits.
        wait = 0.0 if options["rate"] else counted.wait
        use = Use(options["rate"] or counted.rate, options["hold"] or counted.hold, wait)
        if use.rate is None:
            unknown[alias] = "the board of this host has no checkouts of a running process: give --rate"
        elif use.hold is None:
            unknown[alias] = "the board has no durations, as POOL['stats'] is off: give --hold"
        elif use.rate * use.hold > MOST:
            unknown[alias] = f"{use.rate * use.hold:,.0f} would be borrowed at once: --hold is in seconds"
        elif threads is None and not options["asgi"]:
            unknown[alias] = "give --threads, or --asgi"
        elif size := size_of(alias, use, None if options["asgi"] else threads):
            sizes.append(size)
    return sizes, unknown


def _report(server: Server) -> dict[str, Any]:
    rooms = [{**asdict(room), "fits": room.fits} for room in server.rooms]
    return {**asdict(server), "rooms": rooms, "fits": server.fits}


def _failures(server: Server) -> Iterator[str]:
    if server.error:
        yield f"The server {server.address} does not answer: {server.error}"
    for room in server.rooms:
        if not room.fits:
            yield (
                f"It does not fit: a deployment may open {room.needed} connections to {server.address}, "
                f"others use {room.others} now, and {room.name} is {room.allowed}"
            )


def tables(plan: Plan, found: list[Server], sizes: list[Size]) -> Iterator[Table]:
    """Yield the tables: the connections by server, and the sizes of the pools by alias."""
    yield (
        f"Connections: {plan.hosts} hosts x {plan.processes} processes x the limit of each pool",
        ["server", "of a process", "of all", "deployment", "MiB", "limit", "allowed", "others", "fits"],
        [row for server in found for row in _rows(server)],
    )
    if sizes:
        yield (
            "Sizes: the limit of a process with which fewer than "
            f"{budget.TARGET:.0%} of the checkouts wait. Each rate is a mean; a peak needs --rate",
            ["pool", "checkouts/s", "hold (ms)", "mean out", "limit", "wait", "size"],
            [
                [
                    *(
                        size.alias,
                        f"{size.rate:.3g}",
                        f"{size.hold * 1e3:.3g}",
                        f"{size.out:.3g}",
                        size.limit,
                    ),
                    *(None if size.waiting is None else f"{size.waiting:.1%}", size.size),
                ]
                for size in sizes
            ],
        )


def _rows(server: Server) -> Iterator[list[Any]]:
    limits = " + ".join(f"{limit} ({alias})" for alias, limit in server.limits.items())
    begin = [server.address, limits, server.sessions, DEPLOYMENT * server.sessions, f"{server.memory:g}"]
    if server.error:
        yield [*begin, "no answer", None, None, "?"]
    elif not server.rooms:
        yield [*begin, "the pooler's", None, None, "?"]
    for room in server.rooms:
        yield [*begin, room.name, room.allowed, room.others, "yes" if room.fits else "NO"]
