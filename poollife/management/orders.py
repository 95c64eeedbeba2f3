"""The common part of the commands that give orders: ``pool_suspend``, ``pool_resume``, ``pool_drain`` ..."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from poollife.board import orders
from poollife.board.folder import NoBoard, prepared
from poollife.board.orders import Order, give
from poollife.board.reader import read_board


class OrderCommand(BaseCommand):
    """A command that gives an order to the pools of all processes of this site on this host."""

    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="a key of DATABASES")
        parser.add_argument("--all", action="store_true", help="all aliases")

    def give(self, options: dict[str, Any], change: Callable[[Order], Order]) -> list[str]:
        """Give an order; return the aliases that it is for, ``ALL`` among them for each one.

        :param options: of the command.
        :param change: returns the new order in place of the present one.
        :raises CommandError: the order can't be given.
        """
        aliases = options["aliases"]
        if bool(aliases) == options["all"]:
            raise CommandError("Name aliases of DATABASES, or say --all.")
        if unknown := [alias for alias in aliases if alias not in connections]:
            raise CommandError(f"DATABASES has no {', '.join(map(repr, unknown))}.")
        aliases = aliases or [orders.ALL]
        try:
            give(prepared(), aliases, change)
            board = read_board()
        except (NoBoard, OSError) as error:
            raise CommandError(str(error)) from error
        number = sum(
            any(orders.ALL in aliases or pool.alias in aliases for pool in process.pools)
            for process in board.processes
        )
        self.stdout.write(
            f"Ordered for {', '.join(aliases) if options['aliases'] else 'all aliases'}. "
            f"Processes on this host that have such pools: {number}. Each obeys before its next checkout."
        )
        return list(aliases)
