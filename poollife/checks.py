"""System checks: ``manage.py check`` names a bad setting and the cure. No check opens a session.

The app registers the checks, and so does each backend when it is loaded: they also report a missing app.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from poollife.conf import PoolOptions
from poollife.engines import Database, databases, missing_engine, wrapper_of
from poollife.option_values import READERS

#: The tag of all checks. Not Django's "database": newer versions of Django skip that without an alias.
TAG = "poollife"
MIDDLEWARE = "poollife.middleware.PoolMiddleware"
DUMMY = "django.db.backends.dummy"
#: Seconds: the default of gunicorn's ``timeout``.
WORKER_TIMEOUT = 30.0
#: The options of other packages for pooling: keys of ``DATABASES[alias]``, and settings.
FOREIGN_KEYS = {"POOL_OPTIONS", "SA_POOL_KEY", *(key.upper() for key in READERS)}
FOREIGN_SETTINGS = (
    *("DATABASE_POOL_ARGS", "DATABASE_POOL_CLASS", "DATABASE_POOL_CHECK"),
    *("MYSQLPOOL_ARGUMENTS", "MYSQLPOOL_BACKEND"),
    *("MYSQLPOOL_MAX", "MYSQLPOOL_OVERFLOW", "MYSQLPOOL_TIMEOUT", "MYSQLPOOL_RECYCLE"),
)
#: Options of other pools that stand in OPTIONS.
FOREIGN_OPTIONS = {"MAX_CONNS", "MAX_LIFETIME", "REUSE_CONNS", "pool_name", "pool_reset_session"}
#: Keys of OPTIONS that no driver knows. "timeout" is an option of sqlite3.
NOT_FOR_DRIVERS = (READERS.keys() - {"timeout"}) | FOREIGN_OPTIONS


#: Keys of POOL that show that the size of the pool is a choice, and not the default.
SIZES = ("pool_size", "max_overflow", "preset")


def read_options() -> None:
    """Read POOL of all databases, for programs that start without system checks.

    :raises ImproperlyConfigured: POOL has a mistake; the message names it.
    """
    for database in databases():
        PoolOptions.from_settings(database.alias, database.entry, database.wrapper.driver)


@register(TAG)
def check_databases(**_: Any) -> list[CheckMessage]:
    """Check each entry of ``DATABASES``, alone and together with the other entries."""
    ours = databases()
    issues = [issue for database in ours for issue in _of_one(database)]
    several = list(_of_several(ours)) or _of_servers(ours)
    return [*issues, *several, *_of_others({database.alias for database in ours})]


@register(TAG)
def check_project(**_: Any) -> list[CheckMessage]:
    """Check the other settings that a pooled ENGINE needs."""
    if not (ours := databases()):
        return list(_of_no_pool())
    return [*_of_the_app(), *_of_the_middleware(), *_of_predecessors(ours)]


def _of_one(database: Database) -> Iterator[CheckMessage]:
    yield from _of_django(database)
    if found := database.wrapper.driver.objection():
        yield checks.Error(f"{database.place}: {found[0]}", hint=found[1], id="poollife.E008")
    yield from _of_the_engine(database)
    try:
        options = database.options
    except ImproperlyConfigured as error:
        if database.driver_options.get("pool"):
            hint = 'OPTIONS goes to the driver; POOL stands beside it: "POOL": {"pool_size": 5}.'
            yield checks.Error(str(error), hint=hint, id="poollife.E002")
        else:
            hint = "Correct it or leave it out: each option has a default."
            yield checks.Error(str(error), hint=hint, id="poollife.E001")
        return
    if options.behind:
        yield from _of_proxy(database, options)
    if len(database.wrapper.driver.places({"host": database.entry["HOST"]})) > 1 and not options.role:
        yield checks.Warning(
            f"{database.place}: HOST lists several servers, and POOL has no role: sessions lead to the first "
            f"that listens, even if it has become a replica and refuses writes.",
            hint="Say in POOL which one is wanted: 'role': 'primary', or 'replica'.",
            id="poollife.W015",
        )
    if options.pooled:
        yield from _of_options(database, options)


def _of_the_engine(database: Database) -> Iterator[CheckMessage]:
    """Check the keys that only this ENGINE has, and say what was never tried with it."""
    needed = database.wrapper.needed_settings
    if missing := [key for key in needed if not database.entry.get(key)]:
        engine = database.entry["ENGINE"]
        yield checks.Error(
            f"{database.place} has no {' and no '.join(missing)}, which ENGINE {engine!r} needs.",
            hint=f"Such as {', '.join(f'{key!r}: {needed[key]!r}' for key in missing)}.",
            id="poollife.E009",
        )
    if caveat := database.wrapper.caveat:
        yield checks.Info(f"{database.place}: {caveat[0]}", hint=caveat[1], id="poollife.I004")


def _of_django(database: Database) -> Iterator[CheckMessage]:
    """Check Django's own keys of an entry with a pooled ENGINE."""
    place, entry = database.place, database.entry
    if entry["CONN_MAX_AGE"] != 0:
        yield checks.Error(
            f"{place}: CONN_MAX_AGE is {entry['CONN_MAX_AGE']!r}: a thread would keep its connection after "
            f"its work, and the pool would be exhausted.",
            hint="Leave it out (dj-database-url: conn_max_age=0). POOL['recycle'] is a session's age.",
            id="poollife.E003",
        )
    if strays := sorted(NOT_FOR_DRIVERS & database.driver_options.keys()):
        yield checks.Error(
            f"{place}: OPTIONS has {_list(strays)}: OPTIONS goes to the driver, which does not know it.",
            hint=f"Move it to {place}['POOL'].",
            id="poollife.E004",
        )
    if entry["CONN_HEALTH_CHECKS"]:
        yield checks.Warning(
            f"{place}: CONN_HEALTH_CHECKS adds nothing to what each checkout does.",
            hint="Leave it out: a checkout looks at the socket, and with POOL['pre_ping'] asks the server.",
            id="poollife.W005",
        )
    if entry["ATOMIC_REQUESTS"]:
        yield checks.Info(
            f"{place}: ATOMIC_REQUESTS borrows a connection for every request, from start to end, even "
            f"for one that makes no query.",
            hint="Put transaction.atomic on views that write, or transaction.non_atomic_requests on those "
            "that make no query. If every request writes anyway, silence this.",
            id="poollife.I001",
        )


def _of_proxy(database: Database, options: PoolOptions) -> Iterator[CheckMessage]:
    """Check the keys of an entry that contradict its ``behind``."""
    for problem, cure in database.wrapper.driver.objections(database.entry):
        yield checks.Error(
            f"{database.place}: POOL['behind'] is {options.behind!r}: {problem}.",
            hint=f"{cure}.",
            id="poollife.E006",
        )


def _of_options(database: Database, options: PoolOptions) -> Iterator[CheckMessage]:
    """Check options that are right alone, but not together."""
    place, given = database.place, database.given
    if options.pre_ping and "ping_idle" in given:
        yield checks.Warning(
            f"{place}: POOL['ping_idle'] does nothing beside POOL['pre_ping'], which pings at each checkout.",
            hint="Leave one of the two out; ping_idle costs no round trip while sessions are in use.",
            id="poollife.W006",
        )
    elif "ping_idle" in given and 0 < (options.recycle or 0) <= options.ping_idle:
        yield checks.Warning(
            f"{place}: POOL['ping_idle'] is {options.ping_idle:g}: that has no effect, because a "
            f"session is replaced after POOL['recycle'], {options.recycle} seconds.",
            hint="Give a ping_idle below recycle, or leave it out.",
            id="poollife.W007",
        )
    if options.timeout >= WORKER_TIMEOUT:
        yield checks.Warning(
            f"{place}: POOL['timeout'] is {options.timeout:g}: gunicorn kills a worker that has waited for "
            f"{WORKER_TIMEOUT:g} seconds before the pool can say why.",
            hint="Stay well below the timeout of the server in front; the default is 10 seconds.",
            id="poollife.W008",
        )
    if "outage_wait" in given and options.outage_wait > options.timeout:
        yield checks.Warning(
            f"{place}: POOL['outage_wait'] is {options.outage_wait:g}, but no checkout waits for longer than "
            f"POOL['timeout'], {options.timeout:g} seconds.",
            hint="Give a timeout of at least outage_wait, or an outage_wait of no more than timeout.",
            id="poollife.W014",
        )
    if given and not _is_poolable(database.alias):
        yield checks.Warning(
            f"{place}: POOL does nothing for a database in memory, which lives as long as its connection.",
            hint="Leave POOL out, or give NAME the path of a file.",
            id="poollife.W009",
        )

    if options.reset != "rollback":
        yield from _of_option_files(database, options)


def _of_option_files(database: Database, options: PoolOptions) -> Iterator[CheckMessage]:
    """Check for option files, which a reset can't read again."""
    files: frozenset[str] = database.wrapper.driver.option_files
    if not (named := sorted(files & database.driver_options.keys())):
        return
    hint = "Say in DATABASES what the file says: USER, PASSWORD, HOST, NAME, and the rest in OPTIONS."
    if options.reset == "always":
        yield checks.Warning(
            f"{database.place}: OPTIONS has {_list(named)}: a session can't be reset, so with POOL['reset'] "
            f'"always" each is closed when it comes back, and nothing is pooled.',
            hint=hint,
            id="poollife.W013",
        )
    else:
        yield checks.Info(
            f"{database.place}: OPTIONS has {_list(named)}: a session can't be reset, so each in which "
            f"something may be left is closed, and costs a connect.",
            hint=f"{hint} If all that runs there are plain queries, silence this.",
            id="poollife.I003",
        )


def _is_poolable(alias: str) -> bool:
    wrapper: Any = connections[alias]
    return bool(wrapper.poolable)


def _of_several(ours: list[Database]) -> Iterator[CheckMessage]:
    """Check the aliases that lead to the same database."""
    first: dict[tuple[str, ...], Database] = {}
    for database in ours:
        key = tuple(str(database.entry[part]) for part in ("HOST", "PORT", "NAME", "USER"))
        other = first.setdefault(key, database)
        if database.entry.get("POOL") != other.entry.get("POOL"):
            yield checks.Warning(
                f"{other.place} and {database.place} are the same database, but their POOL differs.",
                hint="Each alias has a pool of its own, and both count against the server's max_connections. "
                "Give both the same POOL, or use one alias.",
                id="poollife.W010",
            )


def _of_servers(ours: list[Database]) -> Iterator[CheckMessage]:
    """Check the aliases whose limits add up on one server, unless POOL of each alias has a size.

    An alias with ``MIRROR`` in TEST is left out: it has the same database on purpose, and most processes
    never use it.
    """
    servers: dict[tuple[str, ...], list[tuple[Database, int]]] = {}
    for database in ours:
        limit = _limit_of(database)
        if limit and database.wrapper.vendor != "sqlite" and not database.entry["TEST"].get("MIRROR"):
            server = tuple(str(database.entry[part]) for part in ("HOST", "PORT"))
            servers.setdefault(server, []).append((database, limit))
    for pools in servers.values():
        if len(pools) > 1 and not all(database.given.keys() & set(SIZES) for database, _ in pools):
            limits = " + ".join(f"{limit} ({database.alias})" for database, limit in pools)
            yield checks.Info(
                f"DATABASES has {len(pools)} aliases on one server: each process may open {limits} = "
                f"{sum(limit for _, limit in pools)} connections there.",
                hint="Each alias has a pool of its own. Give each its pool_size and max_overflow in POOL: "
                "processes x this sum must stay below the server's max_connections.",
                id="poollife.I002",
            )


def _limit_of(database: Database) -> int | None:
    try:
        return database.options.limit
    except ImproperlyConfigured:
        return None  # another check reports this mistake


def _of_no_pool() -> Iterator[CheckMessage]:
    """Check for the app or the middleware without a pooled ENGINE, which other code may have replaced."""
    entries = connections.settings
    named = [
        f"{alias!r}: {entry['ENGINE']!r}" for alias, entry in entries.items() if entry["ENGINE"] != DUMMY
    ]
    parts = ["INSTALLED_APPS"] if apps.is_installed("poollife") else []
    parts += ["MIDDLEWARE"] if any(map(_is_pool_middleware, settings.MIDDLEWARE)) else []
    # Other checks report an ENGINE that can't be loaded, and POOL beside an ENGINE that does not pool.
    told = any("POOL" in entry or wrapper_of(entry["ENGINE"]) is None for entry in entries.values())
    if parts and named and not told:
        yield checks.Warning(
            f"{' and '.join(parts)} {'have' if parts[1:] else 'has'} poollife, but no ENGINE in DATABASES "
            f"pools ({', '.join(named)}).",
            hint='Use one that does, such as "poollife.backends.mysql". If the settings have one, something '
            "replaces it later, as frameworks do for their metrics. Without a pool on purpose, silence this.",
            id="poollife.W012",
        )


def _of_others(ours: set[str]) -> Iterator[CheckMessage]:
    """Check for an ENGINE that does not exist, and for POOL beside an ENGINE that does not read it."""
    for alias, entry in connections.settings.items():
        if found := missing_engine(alias, entry["ENGINE"]):
            yield checks.Error(found[0], hint=found[1], id="poollife.E005")
        elif "POOL" in entry and alias not in ours:
            yield checks.Warning(
                f"DATABASES[{alias!r}]: POOL does nothing: ENGINE {entry['ENGINE']!r} does not pool.",
                hint='Use one that does, such as "poollife.backends.mysql", or leave POOL out.',
                id="poollife.W004",
            )


def _of_the_app() -> Iterator[CheckMessage]:
    if not apps.is_installed("poollife"):
        yield checks.Warning(
            "DATABASES has an ENGINE of poollife's, but INSTALLED_APPS has no poollife.",
            hint='INSTALLED_APPS = ["poollife", ...]',
            id="poollife.W001",
        )


def _of_the_middleware() -> Iterator[CheckMessage]:
    if not getattr(settings, "ROOT_URLCONF", None):
        return  # a program without requests
    places = [number for number, path in enumerate(settings.MIDDLEWARE) if _is_pool_middleware(path)]
    if not places:
        yield checks.Warning(
            f"MIDDLEWARE has no {MIDDLEWARE}: a connection is held until the response has been sent, however "
            f"slow the client is.",
            hint=f'MIDDLEWARE = ["{MIDDLEWARE}", ...]',
            id="poollife.W002",
        )
    elif places[0] != 0:
        yield checks.Warning(
            f"{settings.MIDDLEWARE[0]} stands before {MIDDLEWARE}: what it borrows is not given back with "
            f"the response.",
            hint="Put PoolMiddleware first. If the middleware before it makes no queries, silence this.",
            id="poollife.W003",
        )


def _is_pool_middleware(path: str) -> bool:
    if path == MIDDLEWARE:
        return True
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django reports this itself
    return isinstance(found, type) and getattr(found, "gives_back_connections", False)


def _of_predecessors(ours: list[Database]) -> Iterator[CheckMessage]:
    """Check for settings of other packages, which the ENGINE before this one has read."""
    strays = [
        f"{database.place}[{key!r}]"
        for database in ours
        for key in database.entry
        if key != "POOL" and key.upper() in FOREIGN_KEYS
    ]
    strays += [name for name in FOREIGN_SETTINGS if hasattr(settings, name)]
    for stray in strays:
        yield checks.Warning(
            f"{stray} does nothing: poollife reads only POOL in each entry of DATABASES.",
            hint='Move it there, with names in lower case: "POOL": {"pool_size": 5, "max_overflow": 10}.',
            id="poollife.W011",
        )


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names))
