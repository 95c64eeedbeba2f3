"""``manage.py pool_resize``: give the pools of all processes of this site on this host other sizes."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import NotSupportedError, connections

from poollife.board import orders
from poollife.board.orders import Order
from poollife.control import options_of
from poollife.management.orders import OrderCommand


class Command(OrderCommand):
    """Give the pools of all processes of this site on this host other sizes than the settings.

    Processes that begin later have them, too, until --reset, or until the host starts again.
    """

    help = "Give the pools of all processes of this site on this host other sizes than the settings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        for size in orders.SIZES:
            parser.add_argument(
                f"--{size.replace('_', '-')}", type=int, metavar="N", help=f"as POOL[{size!r}]"
            )
        parser.add_argument("--reset", action="store_true", help="the sizes in the settings again")

    def handle(self, *args: Any, **options: Any) -> None:
        sizes = {size: options[size] for size in orders.SIZES if options[size] is not None}
        if bool(sizes) == options["reset"]:
            raise CommandError("Name a size, or say --reset.")

        def check(given: Mapping[str, Order]) -> None:
            # With the sizes of earlier orders: processes take all or none.
            for alias in options["aliases"] or connections:
                if options["aliases"] or hasattr(connections[alias], "pool_options"):
                    options_of(alias).resized(alias, orders.present(given, alias).sizes)

        try:
            self.give(options, partial(orders.resized, sizes=sizes), check)
        except (ImproperlyConfigured, NotSupportedError) as error:
            raise CommandError(str(error)) from error
