"""``manage.py pool_renew``: replace all sessions that are open now."""

from __future__ import annotations

from functools import partial
from typing import Any

from poollife import clock
from poollife.board import orders
from poollife.management.orders import OrderCommand


class Command(OrderCommand):
    """Replace all sessions that are open now, in all processes of this site on this host.

    Idle sessions are closed before the next checkout, or within a minute; borrowed ones when they are
    returned.
    """

    help = "Replace all sessions that are open now, in all processes of this site on this host."

    def handle(self, *args: Any, **options: Any) -> None:
        self.give(options, partial(orders.renewed, up_to=clock.monotonic()))
