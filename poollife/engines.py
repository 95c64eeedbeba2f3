"""The ENGINEs of poollife, and the nearest one to a misspelt name."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS

#: Other names of databases and drivers, and the names of their backends.
OTHER_NAMES = {"mariadb": "mysql", "gis": "mysql_gis", "pymysql": "mysql_pymysql"}


def engines() -> list[str]:
    """Return the names of all ENGINEs of poollife, such as "poollife.backends.mysql"."""
    folder = Path(__file__).with_name("backends")
    modules = pkgutil.iter_modules([str(folder)], "poollife.backends.")
    return [module.name for module in modules if module.ispkg]


def missing_engine(alias: str, engine: str) -> tuple[str, str] | None:
    """Return message and hint if an ENGINE of poollife's does not exist; None: there is no such mistake.

    :param alias: of the database, for the message.
    :param engine: its ``ENGINE``.
    """
    if not engine.startswith("poollife.") or engine in (known := engines()):
        return None
    name = engine.rpartition(".")[2]
    names = {each.rpartition(".")[2]: each for each in known}
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
