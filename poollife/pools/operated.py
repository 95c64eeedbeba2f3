"""The part of a pool that operators change while it is in use: its sizes, a suspension, a renewal.

They do so in one process (``control.py``), or in all processes of a site on this host (``board/orders.py``).
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from django.core.exceptions import ImproperlyConfigured
from django.db import NotSupportedError

from poollife import clock
from poollife.board import layout
from poollife.board.orders import Order, order_for
from poollife.board.page import page
from poollife.board.past import tolerated
from poollife.conf import PoolOptions
from poollife.pools import log
from poollife.pools.returning import ReturningPool


class OperatedPool(ReturningPool):
    """A pool that obeys orders.

    A checkout compares the number of the present orders with that in ``counters``.
    """

    # On the class until an operator acts: the fewer attributes a pool has, the faster it is.
    _ordered = Order()
    _suspended_here = False
    #: The options that no order for all processes has changed; None: no order has changed any.
    _own_options: PoolOptions | None = None

    def resize(self, options: PoolOptions) -> None:
        """Change the sizes. Borrowed sessions beyond the new limit are closed when they are returned.

        :param options: all options of the pool, with the new sizes.
        :raises NotSupportedError: with a ``poolclass`` that can't do that.
        """
        self._slots.change(options.bounds)
        self.options = options
        self.cells.set_limit(options.limit)
        self.housekeeping.call()

    def suspend(self, suspended: bool = True) -> None:
        """Serve no checkout from now on, in this process.

        :param suspended: False: serve them again, unless all processes are suspended.
        :raises NotSupportedError: as for ``resize()``.
        """
        self._suspended_here = suspended
        self._apply_suspensions()

    def renew(self, up_to: float) -> None:
        """Close the idle sessions now, and the borrowed ones when they are returned.

        :param up_to: sessions that were opened later stay, in seconds on the monotonic clock.
        """
        self.liveness.renewed = max(self.liveness.renewed, up_to)
        self.close_idle()

    def obey(self) -> None:
        """Do what has been ordered for all processes since the last time, and end a suspension that is over.

        Each order is done as often as it is met: several threads may do so at once, and an exception from
        outside may end one of them at any point.
        """
        number = page.orders[0]
        obeyed = number == self.counters[layout.ORDERS]
        if obeyed and not self.suspended and not self._ordered.suspended_until:
            return
        # Orders that can't be read change nothing: a suspension ends when it would have ended.
        with tolerated(self._note_wrong):
            if obeyed:
                self._apply_suspensions()
            else:
                self._carry_out(self._present_order())
        # Last: until then each checkout looks.
        self.counters[layout.ORDERS] = number

    def _note_wrong(self, error: Exception) -> None:
        text = "Pool %r can't obey an order for all processes: %s"
        log.note(logging.WARNING, text, self.key.alias, error, alias=self.key.alias)

    def _present_order(self) -> Order:
        return order_for(page.folder, self.key.alias) if page.folder else Order()

    def _carry_out(self, order: Order) -> None:
        if (before := self._ordered) != order:
            self._ordered = order
        if order.renewed > max(self.made, self.liveness.renewed):
            text = "Pool %r replaces all its sessions: an operator has ordered it"
            log.note(logging.INFO, text, self.key.alias, alias=self.key.alias)
            self.renew(order.renewed)
        if order.suspended_until or before.suspended_until:
            try:
                self._apply_suspensions()
            except NotSupportedError as error:
                self._ordered = replace(order, suspended_until=0.0)
                self._note_wrong(error)
        if order.sizes or before.sizes:
            self._own_options = self._own_options or self.options
            try:
                self.resize(self._own_options.resized(self.key.alias, order.sizes))
            except (ImproperlyConfigured, NotSupportedError) as error:
                self._note_wrong(error)

    def _apply_suspensions(self) -> None:
        ordered = clock.monotonic() < self._ordered.suspended_until
        if (suspended := self._suspended_here or ordered) != self.suspended:
            text = "Pool %r is suspended%s" if suspended else "Pool %r is not suspended any more%s"
            seconds = self._ordered.suspended_until - clock.monotonic()
            until = f", for {math.ceil(seconds)} s" if ordered else ""
            log.note(logging.INFO, text, self.key.alias, until, alias=self.key.alias)
            self._slots.change(suspended=suspended)
