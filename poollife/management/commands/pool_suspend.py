"""``manage.py pool_suspend``: have the checkouts of all processes of this site on this host wait."""

from __future__ import annotations

from argparse import ArgumentParser
from functools import partial
from typing import Any

from poollife.board import orders
from poollife.management.arguments import amount
from poollife.management.orders import OrderCommand


class Command(OrderCommand):
    """Have each checkout wait, in all processes of this site on this host, until pool_resume.

    The suspension ends by itself, whatever becomes of the operator. Borrowed sessions stay in use.
    """

    needs_processes = True
    help = "Have each checkout wait, in all processes of this site on this host, until pool_resume."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--for",
            dest="seconds",
            type=amount,
            default=60.0,
            metavar="SECONDS",
            help="the suspension ends by itself after so many seconds (default: 60; at most "
            f"{orders.LONGEST_SUSPENSION:g})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.give(options, partial(orders.suspended, seconds=options["seconds"]))
