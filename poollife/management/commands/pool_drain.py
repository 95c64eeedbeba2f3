"""``manage.py pool_drain``: replace all sessions, and wait until none of those is in use any more."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from poollife import clock
from poollife.board import orders
from poollife.board.orders import ALL
from poollife.board.reader import read_board
from poollife.board.views import Holder
from poollife.management.arguments import amount
from poollife.management.orders import OrderCommand

#: Seconds between two looks.
INTERVAL = 0.05


class Command(OrderCommand):
    """Do what pool_renew does, and wait until no session that was open then is in use any more.

    Checkouts that come meanwhile open new sessions. After pool_suspend they wait instead.
    """

    needs_processes = True
    help = "Do what pool_renew does, and wait until no session that was open then is in use any more."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--timeout",
            type=amount,
            default=30.0,
            metavar="SECONDS",
            help="the longest wait in seconds (default: 30)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        deadline = clock.monotonic() + options["timeout"]
        up_to = clock.monotonic()
        aliases = self.give(options, partial(orders.renewed, up_to=up_to))
        while left := [each for each in read_board().holders if _is_meant(each, aliases, up_to)]:
            if clock.monotonic() >= deadline:
                told = "; ".join(
                    f"{each.alias}: {each.work or each.thread}, process {each.pid}, for {each.held:.1f} s"
                    for each in left
                )
                raise CommandError(f"Still in use after {options['timeout']:g} s: {told}")
            time.sleep(INTERVAL)
        self.stdout.write("No session that was open then is in use any more.")


def _is_meant(holder: Holder, aliases: list[str], up_to: float) -> bool:
    return holder.session_opened <= up_to and (ALL in aliases or holder.alias in aliases)
