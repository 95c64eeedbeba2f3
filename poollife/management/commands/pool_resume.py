"""``manage.py pool_resume``: end what ``pool_suspend`` began."""

from __future__ import annotations

from typing import Any

from poollife.board import orders
from poollife.management.orders import OrderCommand


class Command(OrderCommand):
    """End what pool_suspend began, in all processes of this site on this host.

    Waiting checkouts go on within a quarter of a second, first come, first served.
    """

    help = "End what pool_suspend began, in all processes of this site on this host."

    def handle(self, *args: Any, **options: Any) -> None:
        self.give(options, orders.resumed)
