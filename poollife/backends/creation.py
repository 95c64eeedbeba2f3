"""Test databases. Invariant 8: tests never touch the real database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connections

from poollife.backends.credentials import answered
from poollife.backends.opening import the_registry

if TYPE_CHECKING:
    from django.db.backends.base.creation import BaseDatabaseCreation
else:
    BaseDatabaseCreation = object


class PooledCreation(BaseDatabaseCreation):
    """A creation class that closes the pools of its alias when the database behind the alias changes.

    The database is a part of a pool's key, so a checkout can't get a session of another database. Closing the
    pools also ends the sessions on a database that is about to be dropped, and those on the real database
    while tests run.
    """

    # Not create_test_db(): Django's deprecation warnings in there point to the line that calls it.
    def _create_test_db(self, *args: Any, **kwargs: Any) -> str:
        with self._disposing("a test database was created"):
            name: str = super()._create_test_db(*args, **kwargs)  # type: ignore[misc]
            return name

    def clone_test_db(self, *args: Any, **kwargs: Any) -> None:
        with self._disposing("the test database was cloned", touched=True), self._answered():
            super().clone_test_db(*args, **kwargs)

    def destroy_test_db(self, *args: Any, **kwargs: Any) -> None:
        with self._disposing("the test database was destroyed", touched=True):
            super().destroy_test_db(*args, **kwargs)

    def set_as_test_mirror(self, *args: Any, **kwargs: Any) -> None:
        with self._disposing("it became a test mirror"):
            super().set_as_test_mirror(*args, **kwargs)

    def setup_worker_connection(self, *args: Any, **kwargs: Any) -> None:
        with self._disposing("a test worker got its clone"):
            super().setup_worker_connection(*args, **kwargs)

    @contextmanager
    def _disposing(self, reason: str, *, touched: bool = False) -> Iterator[None]:
        """Close the pools before the block and after it.

        Before, so that no session is open on the database. After, for sessions that were opened meanwhile.

        :param reason: the text that the log has as the reason.
        :param touched: True if the database itself is read or dropped, False if only the settings change.
        """
        self._dispose(reason, touched)
        yield
        self._dispose(reason, touched)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Put the answers of secret functions into the settings: Django passes these to ``mysqldump``."""
        given = self.connection.settings_dict
        try:
            self.connection.settings_dict = answered(given)
            yield
        finally:
            self.connection.settings_dict = given

    def _dispose(self, reason: str, touched: bool) -> None:
        wrapper: Any = self.connection
        # A connection without a lease belongs to no pool, and Django decides on its end: a database in memory
        # would end with it.
        if wrapper.lease:
            wrapper.close()
        if wrapper.settings_dict is connections.settings.get(wrapper.alias):
            # All threads share these settings, which lead to another database now.
            the_registry().dispose(wrapper.alias, reason)
        if touched:
            # All pools of the database, of other aliases, too: PostgreSQL neither drops nor copies a database
            # while any session is on it.
            the_registry().dispose(None, reason, wrapper.pool_key())


@cache
def pooled_creation(creation_class: type[BaseDatabaseCreation]) -> type[BaseDatabaseCreation]:
    """Return a subclass of a backend's creation class with ``PooledCreation``; the class if it has that."""
    if issubclass(creation_class, PooledCreation):
        return creation_class
    return type(
        creation_class.__name__, (PooledCreation, creation_class), {"__module__": creation_class.__module__}
    )
