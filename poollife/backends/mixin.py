"""The mixin that makes any of Django's database backends a pooled one."""

from __future__ import annotations

import time
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any

from django.db.backends import utils
from django.db.backends.base import base as wrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper
from django.utils.asyncio import async_unsafe

from poollife import clock
from poollife.backends.creation import pooled_creation
from poollife.backends.credentials import asking_client
from poollife.backends.cursors import PooledCursorWrapper, pooled_cursor
from poollife.backends.keys import NO_OPTIONS, containers_of, freeze_options
from poollife.backends.opening import the_registry
from poollife.backends.savepoints import SavepointMixin
from poollife.drivers.contract import HELD, OPENING
from poollife.pools import log
from poollife.pools.base import PoolClosed, PoolKey
from poollife.pools.live import closed_pools
from poollife.process.atfork import at_fork
from poollife.process.guard import alive

if TYPE_CHECKING:
    from poollife.pools.lease import Lease
    from poollife.pools.pool import LeasePool


class PooledMixin(SavepointMixin):
    """Base class of a pooled backend, to be put before a DatabaseWrapper of Django or of another package.

    ``connect()`` borrows a session from the pool, and ``close()`` returns it. The backend below does the
    rest. What a new session needs (Django's session settings, the receivers of ``connection_created``)
    happens when it is opened, not at each checkout.

    A subclass sets the class attribute ``driver``.
    """

    #: Whether the backend below has a cursor wrapper of its own in place of Django's.
    _wraps_cursors_itself = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if wrapper.BaseDatabaseWrapper in cls.__mro__[: cls.__mro__.index(PooledMixin)]:
            raise TypeError(f"{cls.__name__}: put poollife's mixin before the backend that it pools")
        below = super()
        cls._wraps_cursors_itself = (
            getattr(below, "make_cursor", None) is not wrapper.BaseDatabaseWrapper.make_cursor
        )
        if hasattr(cls, "creation_class"):  # a subclass that is itself a mixin has none
            cls.creation_class = pooled_creation(cls.creation_class)  # type: ignore[arg-type]  # a class is hashable
            cls.client_class = asking_client(cls.client_class)  # type: ignore[arg-type]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without values in the class, as with the attributes of Guarded.
        #: The pool of the last checkout, and the settings that led to it.
        self._resolved_pool: LeasePool | None = None
        self._resolved_settings: tuple[Any, ...] = ()
        #: The key of the pool for which ``get_connection_params()`` has set the wrapper's attributes.
        self._configured_for: PoolKey | None = None
        #: NAME at the checkout: Django's test runner changes it in place.
        self._database: Any = None
        super().__init__(*args, **kwargs)

    @property
    def lease_pool(self) -> LeasePool:
        """The process's pool for the present settings of this alias; it is made if there is none."""
        settings = self.settings_dict
        pool = the_registry().pool(self.pool_key(), self.pool_options, self.driver)
        # OPTIONS is copied, because code may change it in place.
        self._resolved_settings = (
            *(settings["HOST"], settings["PORT"], settings["NAME"], settings["USER"]),
            containers_of(settings["OPTIONS"]),
        )
        self._resolved_pool = pool
        return pool

    def pool_key(self) -> PoolKey:
        """Return the key of this wrapper's pool: sessions of the same key are interchangeable.

        The key is compared with the settings at each checkout, because Django's test runner changes
        ``settings_dict`` in place. Override this method if ``get_connection_params()`` depends on anything
        but the settings; it is then called at each checkout.
        """
        settings = self.settings_dict
        return PoolKey(
            self.alias,
            (settings["HOST"], settings["PORT"]),
            settings["NAME"],
            settings["USER"],
            freeze_options(settings["OPTIONS"]) if settings["OPTIONS"] else NO_OPTIONS,
            self.driver,
        )

    def close_if_health_check_failed(self) -> None:
        """End or replace a lease that must not be used; called before each cursor and each transaction."""
        # In a child of a bare fork, the session is the parent's. (The natural place for this call is
        # ensure_connection(), but Django's own tests put a stub below it that calls it.)
        if not alive[0]:
            at_fork.ensure_process()
        lease = self.lease
        # One flat condition saves calls: a statement of a request in its own session needs no other question.
        if (
            lease is None
            or lease.state is not HELD
            or lease.automatic
            or self.health_check_enabled
            or lease.driver.failure is not None
            or lease.pool.disposed
            or self._database != self.settings_dict["NAME"]
            or lease.work.asynchronous  # type: ignore[union-attr]  # a lease that is not automatic has a work
            or self._copies
        ):
            if lease is not None:
                self._look_at(lease)
            elif self.in_atomic_block and self.closed_in_transaction and self.connection is not None:
                # Closed in an atomic block: Django's own error is the right one.
                self.validate_no_broken_transaction()
            super().close_if_health_check_failed()

    def _look_at(self, lease: Lease) -> None:
        """Return the session of a lease, or replace it, if the borrower must not go on with it."""
        if not lease.is_held() and not lease.is_of(self):
            if self.lease is lease:  # otherwise the pool has taken it back
                self.detach_lease()  # this wrapper is a copy
        elif not self.in_atomic_block:
            if not lease.is_held():
                if self.lease is lease:
                    self._replace("its return was interrupted")
            elif self.autocommit and (lease.pool.disposed or self._database != self.settings_dict["NAME"]):
                self._replace("the database behind its alias has changed")
            elif self.health_check_enabled and not self.health_check_done and not self.is_usable():
                # Django's close() would return the session, and the next checkout would get it.
                self._replace("it failed Django's health check")
            elif lease.lost_when_idle:
                self.release(if_idle=True)
            elif lease.must_go_first() and not self.allow_thread_sharing:
                self.release()

    def connect(self) -> None:
        """Borrow a session from the pool.

        :raises PoolTimeout: no session became free within ``POOL["timeout"]`` seconds.
        :raises SynchronousOnlyOperation: in a coroutine.
        """
        # async_unsafe() raises and catches an error in each thread without an event loop.
        if _get_running_loop() is not None:
            refuse_coroutines()
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
            # An override may look at a tenant: then the pool depends on more than the settings.
            or type(self).pool_key is not POOL_KEY
            or "pool_key" in self.__dict__
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
            # The state of a session depends on these, beside the pool's key. Receivers may set something in
            # each new session: a receiver that was connected later has to be called for older sessions, too.
            state = [settings["AUTOCOMMIT"], self.timezone_name]
            if receivers := connection_created.receivers:
                state += [receiver[0] for receiver in receivers]
            if lease.driver.initialised_with == state:
                self._resume(lease)
            else:
                super().connect()
                if self.lease is lease:  # a receiver of connection_created may have closed the connection
                    lease.pool.initialised(lease, state)
            if log.pending:
                # Not earlier: a log handler may query, on this very wrapper.
                log.write()
            if lease.state is OPENING:
                lease.state = HELD
        except BaseException:
            self._replace("it could not be initialised")
            raise
        finally:
            self._asks = True

    def _checkout_elsewhere(self, deadline: float) -> Lease:
        """Borrow from the successor of a pool that was closed while this checkout waited there.

        :param deadline: the end of the wait, in seconds on the monotonic clock.
        """
        while True:
            try:
                return self.lease_pool.checkout(self, deadline)
            except PoolClosed as closed:
                deadline = closed.deadline

    def matches_key(self, key: PoolKey) -> bool:
        """Return whether this key is the wrapper's in the calling thread, as an override may need a tenant.

        :param key: the key of a pool.
        """
        return self.pool_key() == key

    def release(self, *, if_idle: bool = False) -> None:
        """Return the session to the pool, unless an atomic block is open: the block's owner ends the block.

        In a thread's own wrapper ``close()`` does the same, for code that does not know poollife.

        :param if_idle: also keep the session if autocommit is off, or if other threads may use the wrapper.
        """
        if self.in_atomic_block or (if_idle and not (self.autocommit and not self.allow_thread_sharing)):
            return
        if (lease := self.lease) is None:
            self.close()  # a database in memory, which no pool has
            return
        self.run_on_commit = []
        try:
            reason = "its wrapper lost it" if self.connection is None else None
            if self._copies:
                self._end_lease(lease, reason)
            else:
                # As in _end_lease(), for a wrapper without copies: one call less for each request.
                lease.pool.checkin(lease, reason)
                if self.lease is lease:
                    self.lease = None
        finally:
            # After an asynchronous exception, too: otherwise a connection without a lease could be used.
            self.connection = None

    def release_when_idle(self) -> None:
        """Return the session after a statement or a transaction, if nothing needs it any more.

        Called if the lease is automatic: no work is in charge, or ``POOL["release"]`` is ``"statement"``. A
        management command keeps its session, and only notes the time of its pause.
        """
        lease = self.lease
        if lease is None or not lease.is_idle:
            return
        is_of_command = lease.ends_with_work and lease.work is None and not lease.pool.releases_early
        if is_of_command and lease.driver.failure is None:
            lease.paused = clock.monotonic()
        else:
            lease.release(if_idle=True)

    def make_cursor(self, cursor: Any) -> Any:
        """Return a cursor in Django's wrapper, and note in the lease that Django has opened it.

        :param cursor: the driver's cursor.
        """
        if (lease := self.lease) is not None and lease.untracked_cursors:
            lease.untracked_cursors -= 1
        # A tool may have put its own class in the place of Django's.
        if self._wraps_cursors_itself or utils.CursorWrapper is not CursorWrapper:
            return pooled_cursor(super().make_cursor(cursor), lease)
        wrapped = PooledCursorWrapper(cursor, self)
        wrapped.lease = lease
        return wrapped

    def make_debug_cursor(self, cursor: Any) -> Any:
        """Return a cursor in the wrapper that logs, and note in the lease that Django has opened it.

        :param cursor: the driver's cursor.
        """
        if (lease := self.lease) is not None and lease.untracked_cursors:
            lease.untracked_cursors -= 1
        return pooled_cursor(super().make_debug_cursor(cursor), lease)

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Set autocommit as Django does, and return the session if nothing needs it any more.

        Django calls this at the begin and at the end of each transaction.
        """
        try:
            super().set_autocommit(autocommit, *args, **kwargs)
        finally:
            # After an error, too, such as an error of a function that was passed to on_commit().
            if (lease := self.lease) is not None and lease.automatic:
                self.release_when_idle()

    def get_autocommit(self) -> bool:
        """Return whether autocommit is on, without borrowing a session for the answer.

        ``on_commit()`` and ``select_for_update()`` call this outside of transactions, too. A session that was
        borrowed here would stay out, if no statement followed.
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
        """Leave all atomic blocks. The return of the session rolls an open transaction back."""
        # The blocks of a shared wrapper may belong to another thread, which goes on.
        if not self.allow_thread_sharing:
            self.in_atomic_block = self.closed_in_transaction = False

    def detach_lease(self) -> None:
        """Forget a session that this wrapper no longer has, and fail an atomic block that was open on it."""
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
        # The lease of a copy is the original's, and the copy must not end it.
        if lease.is_of(self) or not lease.active:
            lease.pool.checkin(lease, reason)
        # Forgotten last: after an asynchronous exception the next connect() or release() ends it. The wrapper
        # may have another lease by now: the pool logs, and a log handler may query.
        if self.lease is lease:
            self.lease = None
        if self._copies and not lease.active:
            for twin in self._copies:
                if twin.lease is lease:
                    twin.detach_lease()

    def _replace(self, reason: str) -> None:
        # In this order: otherwise a connection without a lease could be used.
        self.connection = None
        if lease := self.lease:
            self._end_lease(lease, reason)

    def _resume(self, lease: Lease) -> None:
        """Do the part of ``BaseDatabaseWrapper.connect()`` that sets up the wrapper, not the session.

        ``tests/compatibility/test_private_names.py`` compares the two methods.
        """
        if self._configured_for != lease.pool.key:
            # Backends set attributes of the wrapper in this method (isolation_level, transaction_mode).
            self.get_connection_params()
            self._configured_for = lease.pool.key
        self.in_atomic_block = False
        self.savepoint_ids = []
        self.atomic_blocks = []
        self.needs_rollback = False
        self.health_check_enabled = self.settings_dict["CONN_HEALTH_CHECKS"]
        max_age = self.settings_dict["CONN_MAX_AGE"]
        # With 0, the default, the value is 0, which is in the past.
        self.close_at = None if max_age is None else max_age and time.monotonic() + max_age
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.health_check_done = True
        self.connection = lease.connection
        self.autocommit = self.settings_dict["AUTOCOMMIT"]
        self.run_on_commit = []
        if self.autocommit:
            self.run_commit_hooks_on_set_autocommit_on = False


@async_unsafe
def refuse_coroutines() -> None:
    """Raise Django's error, if it is called in a coroutine."""


#: The key that depends on nothing but the settings.
POOL_KEY = PooledMixin.pool_key
