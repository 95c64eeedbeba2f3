"""The part of the mixin that opens sessions: parameters, passwords that are asked for, and the guard."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from django.db.backends.base import base as wrapper
from django.utils.functional import cached_property

from poollife.backends.credentials import answered, askers_in
from poollife.conf import UNPOOLED, PoolOptions
from poollife.drivers.contract import Driver
from poollife.drivers.network import set_tcp_timeouts
from poollife.process.atfork import at_fork
from poollife.process.guard import getpid

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from poollife.pools.lease import Lease
    from poollife.pools.registry import Registry
else:
    BaseDatabaseWrapper = object


#: The longest time, in seconds, that a fork waits for the import of SQLAlchemy, which waits for no server.
IMPORT_WAIT = 10.0
#: Seconds in which a session has to be open, if ``OPTIONS`` says nothing. Without a limit (mysqlclient and
#: libpq have none, psycopg 3 takes 130) one attempt at a host that hangs holds up all checkouts, as attempts
#: are made one at a time after an error.
CONNECT_TIMEOUT = 10
#: Seconds in which a server of a list has to say which role it has.
ROLE_LIMIT = 5.0
#: The process's pools; None until the first checkout, since loading an ENGINE, as most commands do, needs no
#: SQLAlchemy.
_registry: Registry | None = None


def the_registry() -> Registry:
    """Return the process's pools. The first call imports SQLAlchemy."""
    global _registry
    if _registry is None:
        # A fork waits for this as for a handshake: in a child that was forked in the middle of an import, the
        # modules that were being imported stay locked by a thread that does not exist there.
        with at_fork.gate.handshake(wait=IMPORT_WAIT):
            from poollife.pools.registry import registry
        _registry = registry
    return _registry


class OpeningMixin(BaseDatabaseWrapper):
    """A DatabaseWrapper that opens guarded sessions for a pool. ``PooledMixin`` borrows them."""

    #: The driver, an instance of a subclass of ``Driver``.
    driver: Driver
    #: The driver's module; the stubs leave it out.
    Database: Any
    #: Keys that an entry of ``DATABASES`` needs beside Django's, with examples.
    needed_settings: Mapping[str, str] = {}
    #: What was never tried with this ENGINE, and the ENGINE to take in its place; None: it has no such gap.
    caveat: tuple[str, str] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The present lease; None while this wrapper has no session of a pool.
        self.lease: Lease | None = None
        #: True if ``get_connection_params()`` calls secret functions, because a session is to be opened.
        self._asks = True
        super().__init__(*args, **kwargs)
        #: The settings with a password that was asked for, until a connection was opened with them.
        self._answered: dict[str, Any] | None = None

    @cached_property
    def pool_options(self) -> PoolOptions:
        """The options in ``POOL``, read at the first access, which the first checkout makes.

        Not when Django makes the wrapper: the import of a model does that, and an error at that moment would
        come before the system check that explains it.

        :raises ImproperlyConfigured: names the alias, the key, the value and the nearest right key.
        """
        # Django uses this alias for connections without a database, whichever key of DATABASES they serve.
        if self.alias == wrapper.NO_DB_ALIAS:
            return UNPOOLED
        return PoolOptions.from_settings(self.alias, self.settings_dict, self.driver)

    @property
    def poolable(self) -> bool:
        """True if the sessions of this database may be pooled."""
        return True

    def copy(self, alias: str | None = None) -> Self:
        """Return another wrapper with a deep copy of the settings, as Django does.

        Secret functions are not copied: both wrappers call the same ones.

        :param alias: the alias of the new wrapper. Default: the alias of this one.
        """
        memo = {id(each): each for each in askers_in(self.settings_dict)}
        return type(self)(copy.deepcopy(self.settings_dict, memo), self.alias if alias is None else alias)

    def get_connection_params(self) -> dict[str, Any]:
        """Return the arguments of the driver's ``connect()``. Secret functions are called here."""
        given = self.settings_dict
        try:
            # Not while a session is there already: backends also set attributes of the wrapper in here.
            if self._asks:
                self.settings_dict = self._answered = answered(given)
            return super().get_connection_params()
        finally:
            self.settings_dict = given

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return the driver connection that ``connect()`` puts into ``self.connection``: the borrowed one."""
        self._asks = True  # from here on, code may need the parameters to open a session
        return self.lease.connection if self.lease else super().get_new_connection(conn_params)

    def open_connection(self, params: dict[str, Any]) -> Any:
        """Open a session as the backend below does, and return its guarded driver connection.

        :param params: the arguments of the driver's ``connect()``.
        """
        pid = getpid()
        with at_fork.gate.handshake(self.driver.remote_addresses(params)):
            connection = self._connect_somewhere(params, pid)
            driver = self.driver.unwrap(connection)
            # Code that wraps the driver's connect() may have forked.
            driver.check_process()
            # Inside of the handshake: a fork waits for its end, so no child inherits what this call opens for
            # a moment.
            if not self.driver.sets_tcp_timeouts(params):
                set_tcp_timeouts(driver.guard.fd, self.pool_options.network_timeout)
            # With autocommit off, a session at rest is in a transaction already.
            if self.pool_options.lazy_begin and self.settings_dict["AUTOCOMMIT"]:
                self.driver.begin_lazily(driver)
        return connection

    def _connect_somewhere(self, params: dict[str, Any], pid: int) -> Any:
        """Open and guard a session, at the first server of a list that is reached and has the wanted role.

        :param params: the arguments of the driver's ``connect()``.
        :param pid: this process.
        :returns: if none has the role, a session at the first that answers.
        :raises Error: the driver's, if none is reached; and if the primary is wanted and may be a server that
            is not reached: the checkouts wait then, as in each outage, for its return or for a promotion.
        """
        places = self.driver.places(params)
        if len(places) == 1:
            return self.driver.adopt(self._connect_with_answers(params), pid, params)
        role = self.pool_options.role
        opened: list[Any] = []
        #: Those that have answered, and have another role.
        others: list[Any] = []
        chosen: Any = None
        failure: Exception | None = None
        try:
            for place in places:
                try:
                    opened.append(self.driver.adopt(self._connect_with_answers(place), pid, place))
                except self.Database.Error as error:
                    if self.driver.unreachable(error) is False:
                        raise
                    failure = error
                else:
                    has_role = role is None or self.driver.unwrap(opened[-1]).has_role(role, ROLE_LIMIT)
                    if has_role:
                        chosen = opened[-1]
                        break
                    if has_role is False:
                        others.append(opened[-1])
            else:
                if failure and (role == "primary" or not opened):
                    raise failure
                chosen = (others or opened)[0]
            return chosen
        finally:
            for connection in opened:
                if connection is not chosen:
                    self.driver.unwrap(connection).close()

    def _connect_with_answers(self, params: dict[str, Any]) -> Any:
        """Open a physical connection; Oracle's backend reads the settings here, and finds the answers."""
        given = self.settings_dict
        try:
            self.settings_dict = self._answered or given
            return super().get_new_connection(params)
        finally:
            self.settings_dict, self._answered = given, None

    def opener(self) -> Self:
        """Return another wrapper with the present settings, to open sessions in another thread."""
        # It has settings of its own, because code may change these in place while it opens a session. Not by
        # copy(): OPTIONS may have objects that can't be copied, such as an SSLContext.
        settings = {**self.settings_dict, "OPTIONS": {**(self.settings_dict["OPTIONS"] or {})}}
        return type(self)(settings, self.alias)
