"""The mixin that makes any of Django's database backends a pooled one."""

from __future__ import annotations

import copy
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Self

from django.db.backends.base import base as wrapper
from django.db.backends.signals import connection_created
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property

from poollife import clock
from poollife.backends.creation import pooled_creation
from poollife.backends.credentials import answered, askers_in, asking_client
from poollife.backends.cursors import PooledCursorWrapper, pooled_cursor
from poollife.conf import SECRET_OPTIONS, UNPOOLED, PoolOptions
from poollife.drivers.contract import HELD, OPENING, Driver
from poollife.drivers.network import give_up_after
from poollife.pools import log
from poollife.pools.base import PoolClosed, PoolKey
from poollife.pools.lease import Lease
from poollife.pools.live import closed_pools
from poollife.process.atfork import at_fork
from poollife.process.guard import alive, getpid

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from poollife.pools.pool import LeasePool
else:
    BaseDatabaseWrapper = object


class PooledMixin(BaseDatabaseWrapper):
    """Put before a DatabaseWrapper of Django's or of anybody's, together with a ``driver``.

    ``connect()`` borrows a connection from the pool and ``close()`` gives it back; all else is the backend's.
    What a physical connection needs (Django's session settings, receivers of ``connection_created``) happens
    when it is opened, not at each checkout.
    """

    driver: Driver
    #: The driver's module; the stubs leave it out.
    Database: Any
    lease: Lease | None = None
    #: The pool of the settings that this wrapper had at its last checkout, and what these were.
    _resolved_pool: LeasePool | None = None
    _resolved_settings: tuple[Any, ...] = ()
    #: Whether the pool depends on nothing but the settings.
    _key_is_ours = True
    #: Whether the backend below has a cursor wrapper of its own in place of Django's.
    _wraps_cursors_itself = False
    _configured_for: PoolKey | None = None
    #: Whether the parameters of a connection are to be used, and not just looked at.
    _asks = True
    #: The settings with a password that was asked for, until a connection was opened with them.
    _answered: dict[str, Any] | None = None
    #: What NAME was at checkout: Django's test runner changes it in place.
    _database: Any = None
    #: The shallow copies of this wrapper and of its copies, if there are any.
    _copies: weakref.WeakSet[PooledMixin] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if wrapper.BaseDatabaseWrapper in cls.__mro__[: cls.__mro__.index(PooledMixin)]:
            raise TypeError(f"{cls.__name__}: put poollife's mixin before the backend that it pools")
        cls._key_is_ours = cls.pool_key is PooledMixin.pool_key
        below = super()
        cls._wraps_cursors_itself = (
            getattr(below, "make_cursor", None) is not wrapper.BaseDatabaseWrapper.make_cursor
        )
        if hasattr(cls, "creation_class"):  # not yet, where the mixin is itself subclassed
            cls.creation_class = pooled_creation(cls.creation_class)  # type: ignore[arg-type]  # a class is hashable
            cls.client_class = asking_client(cls.client_class)  # type: ignore[arg-type]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Who may use it. A shared one may be connected by another thread, and outlive that.
        self.owner = threading.current_thread()

    def __copy__(self) -> Self:
        """Return a wrapper that uses the same session, as with Django's backends.

        The lease stays with this one: the end of the copy ends nothing. Once this one has given its session
        back, the copy borrows another.
        """
        twin = type(self).__new__(type(self))
        if self._copies is None:
            self._copies = weakref.WeakSet()
        self._copies.add(twin)
        vars(twin).update(vars(self))
        return twin

    @cached_property
    def pool_options(self) -> PoolOptions:
        """What ``POOL`` says, read by the first checkout.

        Not when Django makes the wrapper: the import of a model does that, and then no system check would get
        to name the mistake.

        :raises ImproperlyConfigured: names the alias, the key, the value and the nearest right key.
        """
        # A pool of connections to no database in particular would be shared by aliases on different servers.
        if self.alias == wrapper.NO_DB_ALIAS:
            return UNPOOLED
        return PoolOptions.from_settings(self.alias, self.settings_dict)

    @property
    def poolable(self) -> bool:
        """Whether a pool may have this database's connections."""
        return True

    @property
    def lease_pool(self) -> LeasePool:
        """This process's pool for the present settings of this alias."""
        # Here: who only loads an ENGINE, as most commands do, does not import SQLAlchemy.
        from poollife.pools.registry import registry

        settings = self.settings_dict
        pool = registry.pool(self.pool_key(), self.pool_options, self.driver)
        if self._key_is_ours:
            # A copy, as these are changed in place.
            self._resolved_settings = (
                *(settings["HOST"], settings["PORT"], settings["NAME"], settings["USER"]),
                containers_of(settings["OPTIONS"]),
            )
            self._resolved_pool = pool
        return pool

    def pool_key(self) -> PoolKey:
        """What makes two connections interchangeable.

        Read anew at each checkout: Django's test runner changes ``settings_dict`` in place. Override it where
        ``get_connection_params()`` depends on anything else.
        """
        settings = self.settings_dict
        return PoolKey(
            self.alias,
            (settings["HOST"], settings["PORT"]),
            settings["NAME"],
            settings["USER"],
            freeze_options(settings["OPTIONS"]) if settings["OPTIONS"] else NO_OPTIONS,
        )

    def close_if_health_check_failed(self) -> None:
        """Look whether this may still be used. Django asks ahead of each cursor and each transaction."""
        # In a child that no hook announced, the connection in here is the parent's. (This would be nearer in
        # ensure_connection(), but Django's own tests put a stub below it that calls it.)
        if not alive[0]:
            at_fork.ensure_process()
        lease = self.lease
        # Flat: this is all that a statement of a request in its own session has to ask.
        if (
            lease is None
            or lease.state is not HELD
            or lease.automatic
            or self.health_check_enabled
            or lease.driver.broken is not None
            or lease.pool.disposed
            or self._database != self.settings_dict["NAME"]
            or lease.work.asynchronous  # type: ignore[union-attr]  # what is not automatic has a work
            or self._copies
        ):
            if lease is not None:
                self._look_at(lease)
            elif self.in_atomic_block and self.closed_in_transaction and self.connection is not None:
                # What Django says of a connection that was closed in an atomic block is the right answer.
                self.validate_no_broken_transaction()
            super().close_if_health_check_failed()

    def _look_at(self, lease: Lease) -> None:
        """Give a lease back, or replace its session, where its borrower must not go on with it."""
        if not lease.is_held() and not lease.is_of(self):
            if self.lease is lease:  # else the pool has taken it back
                self.detach_lease()  # it is a copy
        elif not self.in_atomic_block:
            if not lease.is_held():
                if self.lease is lease:
                    self._replace("its return was interrupted")
            elif self.autocommit and (lease.pool.disposed or self._database != self.settings_dict["NAME"]):
                self._replace("the database behind its alias has changed")
            elif self.health_check_enabled and not self.health_check_done and not self.is_usable():
                # Django's close() would give it back, to be handed out next.
                self._replace("it failed Django's health check")
            elif lease.lost_when_idle:
                self.release(if_idle=True)
            elif lease.must_go_first() and not self.allow_thread_sharing:
                self.release()

    @async_unsafe
    def connect(self) -> None:
        """Borrow a connection.

        :raises PoolTimeout: if none became free in time.
        """
        if self.lease:
            self._end_lease(self.lease, "its wrapper lost it")
        if not self.poolable:
            super().connect()
            return
        settings = self.settings_dict
        self._database = settings["NAME"]
        pool, seen = self._resolved_pool, self._resolved_settings
        if (
            pool is None
            or not alive[0]
            or pool.closed_because is not None
            or closed_pools
            or settings["NAME"] != seen[2]
            or settings["HOST"] != seen[0]
            or settings["PORT"] != seen[1]
            or settings["USER"] != seen[3]
            or settings["OPTIONS"] != seen[4]
        ):
            pool = self.lease_pool
        try:
            lease = pool.checkout(self)
        except PoolClosed as closed:
            lease = self._checkout_elsewhere(closed.deadline)
        try:
            self._asks = False
            # What decides on the state of a session, beside what its pool's key has. Receivers may set
            # something in each new session: one that came later has to be told of the old ones.
            state = [settings["AUTOCOMMIT"], settings["TIME_ZONE"]]
            if receivers := connection_created.receivers:
                state += [receiver[0] for receiver in receivers]
            if lease.driver.initialised_with == state:
                self._resume(lease)
            else:
                super().connect()
                if self.lease is lease:  # a receiver of connection_created may have closed it
                    lease.pool.initialised(lease, state)
            if log.pending:
                # Not earlier: a handler of the user's may query, on this very wrapper.
                log.write()
            if lease.state is OPENING:
                lease.state = HELD
        except BaseException:
            self._replace("it could not be initialised")
            raise
        finally:
            self._asks = True

    def _checkout_elsewhere(self, deadline: float) -> Lease:
        """Borrow from the successor of a pool that was closed while this waited there.

        :param deadline: on the monotonic clock.
        """
        while True:
            try:
                return self.lease_pool.checkout(self, deadline)
            except PoolClosed as closed:
                deadline = closed.deadline

    def copy(self, alias: str | None = None) -> Self:
        """Another wrapper with its own settings, as Django does it; who is asked for secrets is the same."""
        memo = {id(each): each for each in askers_in(self.settings_dict)}
        return type(self)(copy.deepcopy(self.settings_dict, memo), self.alias if alias is None else alias)

    @property
    def is_shared(self) -> bool:
        """Whether other threads, or shallow copies of this, may be using its session."""
        return self.allow_thread_sharing or bool(self._copies)

    def get_connection_params(self) -> dict[str, Any]:
        """What the driver's ``connect()`` is called with. Who is to be asked for a password is asked here."""
        given = self.settings_dict
        try:
            # Not for a connection that is there already: backends set attributes of the wrapper here, too.
            if self._asks:
                self.settings_dict = self._answered = answered(given)
            return super().get_connection_params()
        finally:
            self.settings_dict = given

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """What ``connect()`` puts into ``self.connection``: the borrowed one."""
        self._asks = True  # from here on somebody else may need the parameters
        return self.lease.connection if self.lease else super().get_new_connection(conn_params)

    def open_connection(self, params: dict[str, Any]) -> Any:
        """Open and guard a physical connection, as the backend below opens it."""
        pid = getpid()
        with at_fork.gate.handshake(self.driver.peers(params)):
            connection = self.driver.adopt(self._connect_with_answers(params), pid, params)
            driver = self.driver.unwrap(connection)
            # Whoever has wrapped the driver's connect() may have forked.
            driver.check_process()
            # In here: no fork waits for less than a handshake, so none inherits what this has for a moment.
            give_up_after(driver.guard.fd, self.pool_options.network_timeout)
        return connection

    def _connect_with_answers(self, params: dict[str, Any]) -> Any:
        """Open a physical connection; Oracle's backend reads the settings here, and finds the answers."""
        given = self.settings_dict
        try:
            self.settings_dict = self._answered or given
            return super().get_new_connection(params)
        finally:
            self.settings_dict, self._answered = given, None

    def opener(self) -> PooledMixin:
        """Another wrapper with the settings of now, to open connections in another thread."""
        # Settings of its own: these may be changed in place while it opens one. Not copy(): OPTIONS may have
        # what can't be copied, such as an SSLContext.
        settings = {**self.settings_dict, "OPTIONS": {**(self.settings_dict["OPTIONS"] or {})}}
        return type(self)(settings, self.alias)

    def leads_to(self, key: PoolKey) -> bool:
        """Whether this is the key of its pool, in this thread as well: an override may look at a tenant."""
        return self.pool_key() == key

    def release(self, *, if_idle: bool = False) -> None:
        """Give the connection back, unless an atomic block is open, which its owner (a TestCase, say) ends.

        Code that knows no hook of poollife calls ``close()``, which does the same for a thread's own wrapper.

        :param if_idle: nor with autocommit off, or where other threads may use it.
        """
        if self.in_atomic_block or (if_idle and not (self.autocommit and not self.allow_thread_sharing)):
            return
        if (lease := self.lease) is None:
            self.close()  # a database in memory: no pool has it
            return
        self.run_on_commit = []
        try:
            self._end_lease(lease, "its wrapper lost it" if self.connection is None else None)
        finally:
            # Whatever comes from outside: a connection without a lease would be used.
            self.connection = None

    def release_when_idle(self) -> None:
        """Give the connection back after a statement or a transaction, if nothing needs it any more.

        Called where no work is in charge, with ``POOL["release"] = "statement"``, and in commands, which keep
        what they have, and only note when they have paused.
        """
        lease = self.lease
        if lease is None or not lease.is_idle:
            return
        is_commands = lease.ends_with_work and lease.work is None and not lease.pool.releases_early
        if is_commands and lease.driver.broken is None:
            lease.paused = clock.monotonic()
        else:
            lease.release(if_idle=True)

    def make_cursor(self, cursor: Any) -> Any:
        """Wrap a cursor, and tell its lease that Django has opened it."""
        if (lease := self.lease) is not None and lease.untracked_cursors:
            lease.untracked_cursors -= 1
        if self._wraps_cursors_itself:
            return pooled_cursor(super().make_cursor(cursor))
        return PooledCursorWrapper(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> Any:
        """Wrap a cursor whose statements are logged, and tell its lease that Django has opened it."""
        if (lease := self.lease) is not None and lease.untracked_cursors:
            lease.untracked_cursors -= 1
        return pooled_cursor(super().make_debug_cursor(cursor))

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Django's, which also begins and ends each transaction."""
        try:
            super().set_autocommit(autocommit, *args, **kwargs)
        finally:
            # After an error, too: one of a function that on_commit() was given, say.
            if (lease := self.lease) is not None and lease.automatic:
                self.release_when_idle()

    def get_autocommit(self) -> bool:
        """Django's, but that it borrows nothing: with no statement to come, nothing would give that back.

        ``on_commit()`` and ``select_for_update()`` ask this outside of transactions, too.
        """
        if (
            self.connection is None
            and self.settings_dict["AUTOCOMMIT"]
            and not self.in_atomic_block
            and self.poolable
            and self.pool_options.pooled
        ):
            return True
        autocommit: bool = super().get_autocommit()
        return autocommit

    def reset_atomic_state(self) -> None:
        """Leave all atomic blocks; what is open on the connection is rolled back when it goes back."""
        # In a shared one they may be another thread's, which goes on.
        if not self.allow_thread_sharing:
            self.in_atomic_block = self.closed_in_transaction = False

    def detach_lease(self) -> None:
        """Forget a connection that is no longer its own, and fail an atomic block that was open on it."""
        self.lease = None
        self.connection = None
        if self.in_atomic_block:
            self.closed_in_transaction = True
            self.needs_rollback = True

    def _close(self) -> None:
        if self.lease is None:
            super()._close()  # type: ignore[misc]  # the stubs leave it out
        else:
            # Django keeps a connection that was closed in an atomic block until the block ends.
            self._end_lease(self.lease, "closed in an atomic block" if self.in_atomic_block else None)

    def _end_lease(self, lease: Lease, reason: str | None = None) -> None:
        # A copy has its original's.
        if lease.returned or lease.is_of(self):
            lease.pool.checkin(lease, reason)
        # Forgotten last: should this be interrupted, the next connect() or release() goes on with it.
        # It may be another by now: the pool logs, and a handler of the user's may query.
        if self.lease is lease:
            self.lease = None
        if self._copies and not lease.active:
            for twin in self._copies:
                if twin.lease is lease:
                    twin.detach_lease()

    def _replace(self, reason: str) -> None:
        # In this order: a connection without a lease would be used.
        self.connection = None
        if lease := self.lease:
            self._end_lease(lease, reason)

    def _resume(self, lease: Lease) -> None:
        """Do the part of ``BaseDatabaseWrapper.connect()`` that is about this wrapper and not the session.

        tests/compatibility/test_private_names.py compares the two.
        """
        if self._configured_for != lease.pool.key:
            # Backends keep some of what they read there on the wrapper (isolation_level, transaction_mode).
            self.get_connection_params()
            self._configured_for = lease.pool.key
        self.in_atomic_block = False
        self.savepoint_ids = []
        self.atomic_blocks = []
        self.needs_rollback = False
        self.health_check_enabled = self.settings_dict["CONN_HEALTH_CHECKS"]
        max_age = self.settings_dict["CONN_MAX_AGE"]
        # With 0, the default, any time that has passed will do.
        self.close_at = None if max_age is None else max_age and time.monotonic() + max_age
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.health_check_done = True
        self.connection = lease.connection
        self.autocommit = self.settings_dict["AUTOCOMMIT"]
        self.run_on_commit = []
        if self.autocommit:
            self.run_commit_hooks_on_set_autocommit_on = False


def containers_of(value: Any) -> Any:
    """Return a setting with copies of its dictionaries and lists, and equal to it until one is changed."""
    if isinstance(value, dict):
        return {key: containers_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [containers_of(item) for item in value]
    return set(value) if isinstance(value, set) else value


def freeze_options(options: dict[str, Any]) -> Any:
    """The same for OPTIONS, without a password: which one a session was opened with makes no difference."""
    return frozenset((key, freeze(item)) for key, item in options.items() if key not in SECRET_OPTIONS)


#: What freeze() makes of them.
NO_OPTIONS: frozenset[Any] = frozenset()


def freeze(value: Any) -> Any:
    """A hashable stand-in for a setting, equal for equal settings."""
    if isinstance(value, dict):
        return frozenset((key, freeze(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return frozenset(freeze(item) for item in value)
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value
