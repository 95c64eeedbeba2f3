"""The common part of the commands that give orders: ``pool_suspend``, ``pool_resume``, ``pool_drain`` ..."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from poollife.board import orders
from poollife.board.folder import VARIABLE, NoBoard, prepared
from poollife.board.orders import Order, give
from poollife.board.reader import read_board


class OrderCommand(BaseCommand):
    """A command that gives an order to the pools of all processes of this site on this host."""

    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="a key of DATABASES")
        parser.add_argument("--all", action="store_true", help="all aliases")

    #: Whether an order that reaches no process is an error: a script that goes on would rely on it.
    needs_processes = False

    def give(
        self,
        options: dict[str, Any],
        change: Callable[[Order], Order],
        check: Callable[[Mapping[str, Order]], None] = lambda orders: None,
    ) -> list[str]:
        """Give an order; return the aliases that it is for, ``ALL`` among them for each one.

        :param options: of the command.
        :param change: returns the new order in place of the present one.
        :param check: as for ``poollife.board.orders.give()``.
        :raises CommandError: the order can't be given, or reaches no process and ``needs_processes``.
        """
        aliases = options["aliases"]
        if bool(aliases) == options["all"]:
            raise CommandError("Name aliases of DATABASES, or say --all.")
        if unknown := [alias for alias in aliases if alias not in connections]:
            raise CommandError(f"DATABASES has no {', '.join(map(repr, unknown))}.")
        aliases = aliases or [orders.ALL]
        try:
            folder = prepared()
            give(folder, aliases, change, check)
            board = read_board()
        except (NoBoard, OSError) as error:
            raise CommandError(str(error)) from error
        number = sum(
            any(orders.ALL in aliases or pool.alias in aliases for pool in process.pools)
            for process in board.processes
        )
        if not number and self.needs_processes:
            raise CommandError(
                f"It is ordered, but {folder} shows no process with such a pool. Is this the user of the "
                f"site's processes, with their settings and their {VARIABLE}?"
            )
        self.stdout.write(
            f"Ordered for {', '.join(aliases) if options['aliases'] else 'all aliases'}. "
            f"Processes on this host that have such pools: {number}. Each obeys before its next checkout."
        )
        return list(aliases)
