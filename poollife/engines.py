"""The ENGINEs of poollife, the entries of ``DATABASES`` that have one, and the nearest to a misspelt name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import load_backend

from poollife.conf import PoolOptions

#: The beginning of the names of all ENGINEs of poollife.
PREFIX = "poollife.backends."
#: Other names of databases and drivers, and the names of their backends.
OTHER_NAMES = {
    "oceanbase": "jdbc.oceanbase",
    "mariadb": "mysql",
    "gis": "mysql_gis",
    "pymysql": "mysql_pymysql",
}


class Database(NamedTuple):
    """An entry of ``DATABASES`` whose ENGINE is one of poollife's, or made from one."""

    alias: str
    entry: dict[str, Any]

    @property
    def options(self) -> PoolOptions:
        """The options in POOL.

        :raises ImproperlyConfigured: POOL has a mistake; the message names it.
        """
        # With ``behind``, a check of its own names what contradicts it.
        driver = None if self.given.get("behind") else self.wrapper.driver
        return PoolOptions.from_settings(self.alias, self.entry, driver)

    @property
    def given(self) -> Mapping[str, Any]:
        """The keys that POOL has; none if POOL is no dictionary."""
        pool = self.entry.get("POOL")
        return pool if isinstance(pool, Mapping) else {}

    @property
    def driver_options(self) -> Mapping[str, Any]:
        """The options in OPTIONS."""
        return self.entry["OPTIONS"] or {}

    @property
    def place(self) -> str:
        """The name of the entry in messages."""
        return f"DATABASES[{self.alias!r}]"

    @property
    def wrapper(self) -> Any:
        """The DatabaseWrapper class of ENGINE."""
        return load_backend(self.entry["ENGINE"]).DatabaseWrapper


def databases() -> list[Database]:
    """Return the entries of ``DATABASES`` that poollife's backends serve."""
    return [
        Database(alias, entry) for alias, entry in connections.settings.items() if is_ours(entry["ENGINE"])
    ]


def is_ours(engine: str) -> bool:
    """Return whether this ENGINE pools; a composed ENGINE may, too."""
    # An attribute is the mark, because backends import this module. If the ENGINE can't be loaded, Django
    # reports that itself.
    return hasattr(wrapper_of(engine), "pool_options")


def wrapper_of(engine: str) -> type | None:
    """Return the DatabaseWrapper of this ENGINE; None if it can't be loaded."""
    try:
        wrapper: type = load_backend(engine).DatabaseWrapper
    except (ImportError, ImproperlyConfigured):
        return None
    return wrapper


def engines() -> list[str]:
    """Return the names of all ENGINEs of poollife, such as "poollife.backends.mysql"."""
    folder = Path(__file__).with_name("backends")
    # A backend is a package with this module in it, as Django looks for it. One may be inside of another.
    backends = (path.parent.relative_to(folder).parts for path in folder.rglob("base.py"))
    return sorted(PREFIX + ".".join(parts) for parts in backends)


def missing_engine(alias: str, engine: str) -> tuple[str, str] | None:
    """Return message and hint if an ENGINE of poollife's does not exist; None: there is no such mistake.

    :param alias: of the database, for the message.
    :param engine: its ``ENGINE``.
    """
    if not engine.startswith("poollife.") or engine in (known := engines()):
        return None
    name = engine.removeprefix(PREFIX)
    names = {each.removeprefix(PREFIX): each for each in known}
    near = [OTHER_NAMES.get(name, name), *get_close_matches(name, names, n=1)]
    guess = next((f"Did you mean {names[each]!r}? " for each in near if each in names), "")
    message = f"DATABASES[{alias!r}]: ENGINE {engine!r} does not exist."
    return message, f"{guess}There are {', '.join(map(repr, known))}."


def refuse_missing_engine() -> None:
    """Refuse the ENGINE of the default alias, if it would be one of poollife's but does not exist.

    The import of any model needs that alias, and then Django's error names only Django's own backends.

    :raises ImproperlyConfigured: names the right ENGINE.
    """
    engine = settings.DATABASES.get(DEFAULT_DB_ALIAS, {}).get("ENGINE", "")
    if found := missing_engine(DEFAULT_DB_ALIAS, engine):
        raise ImproperlyConfigured(" ".join(found))
