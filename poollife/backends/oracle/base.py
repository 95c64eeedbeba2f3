"""Django's Oracle backend, pooled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.oracle import base
from django.db.backends.oracle.utils import dsn
from django.utils.functional import cached_property

from poollife.backends.mixin import PooledMixin
from poollife.drivers.oracle import driver as oracle
from poollife.process.atfork import at_fork

if TYPE_CHECKING:
    from django.db.backends.oracle.base import DatabaseWrapper as OracleWrapper

    from poollife.pools.lease import Lease
else:
    OracleWrapper = object

#: The name of the fact which operators the server knows.
OPERATORS = "operators"


class PooledOracleMixin(PooledMixin, OracleWrapper):
    """A mixin to be put before Django's Oracle DatabaseWrapper, or before a subclass of that."""

    driver = oracle.driver
    #: Django's own pool, which is never used.
    pool = None

    def close_pool(self) -> None:
        """Do nothing: this would close Django's own pool. ``poollife.close_pool()`` closes poollife's."""

    @property
    def dsn(self) -> str:
        """The connect string of the present settings."""
        text: str = dsn(self.settings_dict)
        return text

    def open_connection(self, params: dict[str, Any]) -> Any:
        # The parameters have no address: Django's backend reads the settings when it connects.
        addresses = self.driver.remote_addresses({**params, "dsn": self.dsn})
        with at_fork.gate.handshake(addresses):
            return super().open_connection(params)

    def _connect_with_answers(self, params: dict[str, Any]) -> Any:
        addresses = self.driver.remote_addresses({**params, "dsn": self.dsn})
        return self.driver.open(partial(super()._connect_with_answers, params), addresses, params)

    def init_connection_state(self) -> None:
        """Set up a new session as Django does, and ask only the first one of a pool which LIKE it knows."""
        if (lease := self.lease) is None:
            super().init_connection_state()
            return
        self._take_operators(lease)
        untracked = lease.untracked_cursors
        super().init_connection_state()
        # Django opens cursors there without its wrapper. That is no sign that the site's code works with the
        # driver.
        lease.untracked_cursors = untracked
        lease.pool.fact(OPERATORS, lambda: (self.operators, self.pattern_ops))

    def _resume(self, lease: Lease) -> None:
        super()._resume(lease)
        # The wrapper may be new, and the session not.
        if "operators" not in self.__dict__:
            self._take_operators(lease)

    def _take_operators(self, lease: Lease) -> None:
        """Set what Django asks each wrapper's first session: whether its LIKE works, or it needs LIKEC."""
        if known := lease.pool.known(OPERATORS):
            self.operators, self.pattern_ops = known

    @cached_property
    def oracle_version(self) -> tuple[int, ...]:
        """The server's version, read once for each pool."""
        return self.lease_pool.fact("oracle_version", lambda: super(PooledOracleMixin, self).oracle_version)


class DatabaseWrapper(PooledOracleMixin, base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names."""
