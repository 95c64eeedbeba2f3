"""The part of a pool that opens sessions: for a checkout, or ahead of one."""

from __future__ import annotations

import random
from typing import Any

from django.db import OperationalError
from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry

from poollife import clock
from poollife.board.layout import CLOSED, CONNECT_ERRORS, OPENED, TIMEOUTS
from poollife.board.page import page
from poollife.errors import PoolTimeout, remembered
from poollife.pools.base import Borrower
from poollife.pools.exhaustion import noted, timeout_of
from poollife.pools.gate import Gate
from poollife.pools.liveness import SHORTEST_LIFETIME
from poollife.pools.operated import OperatedPool
from poollife.pools.tickets import SpareTicket, Ticket, current


class OpeningPool(OperatedPool):
    """A pool that opens a session where its gate lets it."""

    _gate: Gate
    #: The class of the driver connection, if no proxy is around it.
    _driver_class: type | None

    def _open(self) -> Any:
        """Open a session for the current checkout; return the result of the driver's ``connect()``."""
        ticket = current.checkout
        assert ticket, "a session is opened for a borrower"
        self._gate.check(ticket)
        # Before admit(): asking for a password may take time, or need a session at the same server.
        params = self._parameters(ticket.borrower)
        if not self._gate.admit(ticket):
            raise self._timeout(ticket, admitted=False) from self.connect_error
        began = clock.monotonic()
        try:
            connection = ticket.borrower.open_connection(params)
        except Exception as error:
            self._note_failure(error)
            # Any other error, such as a time limit's exception, says nothing of the server.
            if isinstance(error, ticket.borrower.Database.Error):
                if self.driver.refused(error):
                    self.liveness.note_refusal()
                self._gate.failed(ticket, error)
            raise
        driver = self.driver.unwrap(connection)
        if fault := self.liveness.fault_of(driver, self._gate.doubts):
            self._note_failure(fault)
            try:
                self._gate.unfit(ticket, fault)
            except Exception:
                driver.close()
                raise
        self.connect_error = None
        self._gate.opened()
        # Drawn from the system: children of one parent must not all draw the same.
        driver.lifetime = random.SystemRandom().uniform(SHORTEST_LIFETIME, 1)
        driver.idle = isinstance(ticket, SpareTicket)
        self.liveness.note_opening(driver)
        self._driver_class = type(driver) if driver is connection else None
        self.meters.create_time.observe(driver.born - began)
        # An order to replace the sessions that are there means this one, too, if it came meanwhile.
        driver.born = began
        with self._lock:
            self.counters[OPENED] += 1
        driver.session = driver.number_at_server()
        driver.row = page.enter_session(self.number, driver.session, driver.born)
        return connection

    def _parameters(self, borrower: Borrower) -> Any:
        try:
            return borrower.get_connection_params()
        except Exception as error:
            self._note_failure(error)
            raise

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            self.counters[CONNECT_ERRORS] += 1
        self.connect_error = remembered(error)
        if isinstance(error, exc.TimeoutError):
            # Another pool is exhausted (a password that is kept in a database): no timeout of this pool.
            raise OperationalError(f"Pool {self.key.alias!r}: {error}") from error

    def _note_close(self, connection: Any, record: ConnectionPoolEntry) -> None:
        with self._lock:
            self.counters[CLOSED] += 1
        if (row := self.driver.unwrap(connection).row) is not None:
            row.free()

    def _timeout(self, ticket: Ticket, admitted: bool = True) -> PoolTimeout:
        self._count_timeout()
        waited = clock.monotonic() - (ticket.deadline - self.options.timeout)
        return noted(timeout_of(self, waited, admitted))

    def _count_timeout(self) -> None:
        with self._lock:
            self.counters[TIMEOUTS] += 1
