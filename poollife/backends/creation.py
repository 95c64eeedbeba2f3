"""Law 8: tests never touch the real database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connections

from poollife.backends.credentials import answered

if TYPE_CHECKING:
    from django.db.backends.base.creation import BaseDatabaseCreation
else:
    BaseDatabaseCreation = object


class PooledCreation(BaseDatabaseCreation):
    """Closes this alias's pools whenever the database behind it changes.

    Pools are keyed by database, so a checkout can't get the wrong one; this also leaves no session on a
    database that is about to be dropped, or on the real one while tests run.
    """

    # Not create_test_db(): Django blames the line that calls that for what is deprecated in it.
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
        """Close the pools before, for the database's sake, and after, for what was opened meanwhile.

        :param reason: for people.
        :param touched: whether the database itself is read or dropped, and not only named in the settings.
        """
        self._dispose(reason, touched)
        yield
        self._dispose(reason, touched)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Django hands the settings themselves to ``mysqldump``."""
        given = self.connection.settings_dict
        try:
            self.connection.settings_dict = answered(given)
            yield
        finally:
            self.connection.settings_dict = given

    def _dispose(self, reason: str, touched: bool) -> None:
        from poollife.pools.registry import registry

        wrapper: Any = self.connection
        # What the wrapper has without a lease is no pool's, and ends as Django says: a database in memory
        # would end with it.
        if wrapper.lease:
            wrapper.close()
        if wrapper.settings_dict is connections.settings.get(wrapper.alias):
            # The settings of all its threads: they lead elsewhere now.
            registry.dispose(wrapper.alias, reason)
        elif touched:
            # A copy's own settings. All others go on, but for those whose database it is.
            registry.dispose(wrapper.alias, reason, wrapper.pool_key())


@cache
def pooled_creation(creation_class: type[BaseDatabaseCreation]) -> type[BaseDatabaseCreation]:
    """That creation class, aware of pools."""
    if issubclass(creation_class, PooledCreation):
        return creation_class
    return type(
        creation_class.__name__, (PooledCreation, creation_class), {"__module__": creation_class.__module__}
    )
