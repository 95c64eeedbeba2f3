"""The options in ``DATABASES[alias]["POOL"]``: read once, checked, and frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

from poollife.errors import BadPoolOption
from poollife.option_values import READERS, RESETS, Role

#: Names that the settings have in other pools; difflib alone would not find them.
FOREIGN_NAMES = {
    "size": "pool_size",
    "min_size": "pool_size",
    "max_size": "max_overflow",
    "max_connections": "max_overflow",
    "overflow": "max_overflow",
    "core_pool_size": "core_size",
    "minimum_idle": "min_idle",
    "max_lifetime": "recycle",
    "conn_max_age": "recycle",
    "class": "poolclass",
    "ping": "pre_ping",
    "reset_on_return": "reset",
    "leak_detection_threshold": "leak_after",
    "unreturned_connection_timeout": "leak_after",
    "password": "credentials",
    "tcp_user_timeout": "network_timeout",
    "socket_timeout": "network_timeout",
    "validation_timeout": "network_timeout",
    "reconnect_timeout": "outage_wait",
    "keepalives_idle": "network_timeout",
    "pgbouncer": "behind",
    "pool_mode": "behind",
    "target_session_attrs": "role",
}

#: Keys of ``OPTIONS`` that overrule ``PASSWORD``.
SECRET_OPTIONS = ("password", "passwd")
#: Parts of keys whose values are not repeated in messages.
SECRETS = ("pass", "secret", "token", "credential", "key")


#: The presets of django-db-conn-pool, with its names and sizes, but without its timeout of 30 s: after that
#: time gunicorn kills a worker.
PRESETS: dict[str, dict[str, Any]] = {
    "slow_and_safe": {
        "pool_size": 5,
        "max_overflow": 0,
        "recycle": 120,
        "pre_ping": True,
        "reset": "always",
    },
    "fast_and_sane": {"pool_size": 5, "max_overflow": 10, "recycle": 3600},
    "fast_and_wild": {
        "pool_size": 30,
        "max_overflow": 0,
        "core_size": 5,
        "unload_timeout": 2,
        "retire_interval": 5,
        "retire_quantity": 1,
        "recycle": 3600,
    },
}
#: Options that have an effect even if no session outlives its borrower.
WITHOUT_POOL = (
    "poolclass",
    "credentials",
    "network_timeout",
    "outage_wait",
    "role",
    "behind",
    "lazy_begin",
    "application_name",
)
#: Options that only ``FairQueuePool`` has.
FAIR_ONLY = ("core_size", "min_idle", "unload_timeout", "retire_interval", "retire_quantity", "max_waiting")


class Bounds(NamedTuple):
    """The sizes of a queue: numbers of sessions, and of checkouts that wait."""

    #: The number of sessions that may be open at the same time.
    limit: int
    #: The number of sessions that are kept when no checkout needs them. Sessions beyond it are surplus.
    core: int
    #: The number of idle sessions, of the core, that are ready for the next checkouts.
    min_idle: int = 0
    #: The number of checkouts that may wait. Checkouts for which a session may be opened do not count.
    max_waiting: float = math.inf
    #: Seconds for which a returned session is preferred to a new one beyond the core.
    unload_timeout: float = 0.0


class DriverInterface(Protocol):
    """The part of ``poollife.drivers.contract.Driver`` that checks options."""

    #: Whether servers are primaries or replicas.
    has_roles: bool

    def objection_to_lazy_begin(self, entry: Mapping[str, Any]) -> str | None:
        """Return what to do because the driver can't begin lazily; None: the driver can."""

    def objections(self, entry: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the reasons why the driver can't work as ``behind`` says."""


class NoPool:
    """The value of ``poolclass`` with ``POOL: False``."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """The options of one pool. An option that SQLAlchemy's pool has, too, has the same name.

    ``docs/settings.md`` explains each of them.
    """

    #: The number of sessions that are kept open.
    pool_size: int = 5
    #: The number of sessions opened beyond ``pool_size`` in a burst. Both together are the limit per process.
    max_overflow: int = 10
    #: The number of sessions that are kept open once they were needed; None: ``pool_size``. The rest is
    #: surplus.
    core_size: int | None = None
    #: The number of idle sessions that are held ready, in addition to the borrowed ones.
    min_idle: int = 0
    #: Seconds for which a checkout waits for a returned session before one beyond the core is opened.
    unload_timeout: float = 0.0
    #: Seconds between two retirements, and the least idle time of a session that is retired.
    retire_interval: float = 5.0
    #: The number of surplus sessions that are closed in one retirement, at most.
    retire_quantity: int = 1
    #: Seconds without any use after which the whole pool is closed, its core included; None: never.
    max_pool_idle: float | None = 3600.0
    #: Seconds to wait for a session. Under gunicorn's 30, so that ``PoolTimeout`` comes before its kill.
    timeout: float = 10.0
    #: Seconds for which checkouts wait for a server that does not answer, if ``timeout`` allows; 0: no wait.
    outage_wait: float = 5.0
    #: The number of checkouts that may wait at the same time; None: any number.
    max_waiting: int | None = None
    #: Seconds after which a session is replaced; -1: never; None: below the server's own ``wait_timeout``.
    recycle: int | None = None
    #: Seconds of idleness after which a session is pinged before it is lent.
    ping_idle: float = 30.0
    #: Whether a session is pinged at each checkout.
    pre_ping: bool = False
    #: Seconds after which the kernel ends a TCP session whose server sends nothing, not even an
    #: acknowledgement; None: the system's own limits. Under gunicorn's 30, too.
    network_timeout: float | None = 20.0
    #: The treatment of a session at its return: see ``RESETS``.
    reset: str = "auto"
    #: The moment of the return: the end of the request, task or block ("work"), or as soon as no transaction,
    #: cursor or session state needs the session ("statement").
    release: str = "work"
    #: Whether a transaction begins with its first statement, in one packet.
    lazy_begin: bool = False
    #: "primary" or "replica": the role that the sessions' server has to have. Sessions are replaced, with
    #: growing pauses, while it has another one. None: a read-only error is the first sign of a failover.
    role: Role | None = None
    #: "transaction_pooler": a proxy that gives each transaction another session, such as PgBouncer with
    #: ``pool_mode = transaction``. Nothing may be left in a session, and no session is reset. None: no such
    #: proxy.
    behind: str | None = None
    #: PostgreSQL's ``application_name`` of each session, unless libpq is given another one: a text with the
    #: fields {alias}, {host} and {pid}. None: poollife gives none.
    application_name: str | None = None
    #: Seconds after which the log reports a session that is still borrowed; None: never. Implies ``trace``.
    leak_after: float | None = None
    #: Whether the line that borrowed each session is kept.
    trace: bool = False
    #: Whether ``pool_stats()`` also measures for how long sessions are borrowed.
    stats: bool = False
    #: The function that is called for each session that is opened. It returns the password, or a dictionary
    #: with USER and PASSWORD.
    credentials: Callable[[], Any] | None = None
    #: A subclass of SQLAlchemy's QueuePool or NullPool; None: poollife's own ``FairQueuePool``.
    poolclass: type[Any] | None = None

    @classmethod
    def from_settings(
        cls, alias: str, settings: Mapping[str, Any], driver: DriverInterface | None = None
    ) -> PoolOptions:
        """Read one entry of ``DATABASES``.

        :param alias: the key of that entry, for the messages.
        :param settings: that entry.
        :param driver: the ``Driver`` of its ENGINE, which is asked whether it works as ``behind`` says. None:
            that is not checked.
        :raises BadPoolOption: if an option is unknown or wrong. The message names the alias, the key, the
            value and the nearest right key.
        """
        # Django's own test settings have False there.
        if (settings.get("OPTIONS") or {}).get("pool"):
            raise _bad(
                alias, "OPTIONS['pool']", settings["OPTIONS"]["pool"], f"use DATABASES[{alias!r}]['POOL']"
            )
        value = settings.get("POOL", {})
        if value is False:
            return UNPOOLED
        if value is None or value is True:
            value = {}
        if not isinstance(value, Mapping):
            raise _bad(alias, "POOL", value, "use a dictionary of options, or False to switch pooling off")
        if not value:
            return DEFAULTS
        value = _with_preset(alias, value)
        options = cls(**{key: _read(alias, key, value[key]) for key in value})._checked(alias, value)
        if options.lazy_begin and driver and (cure := driver.objection_to_lazy_begin(settings)):
            raise _bad(alias, "POOL['lazy_begin']", True, cure)
        if options.application_name and driver and not hasattr(driver, "name_session"):
            cure = "leave it out: only PostgreSQL has names of sessions"
            raise _bad(alias, "POOL['application_name']", options.application_name, cure)
        if options.role and driver and not driver.has_roles:
            raise _bad(alias, "POOL['role']", options.role, "leave it out: this database has no replicas")
        if options.behind and driver:
            for problem, cure in driver.objections(settings):
                raise _bad(alias, "POOL['behind']", options.behind, f"{problem}. {cure}")
        return options

    @property
    def pooled(self) -> bool:
        """True if sessions outlive their borrower: False with ``POOL: False``, or with a NullPool."""
        if self.poolclass is None or self.poolclass is NoPool:
            return self.poolclass is None
        from sqlalchemy.pool import QueuePool

        return issubclass(self.poolclass, QueuePool)

    @property
    def fair(self) -> bool:
        """True if the queue is poollife's own."""
        return self.poolclass is None or getattr(self.poolclass, "is_fair", False)

    @property
    def waits_for_primary(self) -> bool:
        """True if checkouts wait while new sessions lead to a server that takes no writes."""
        return self.role == "primary" and self.outage_wait > 0

    @property
    def resets(self) -> tuple[bool, bool]:
        """Flags for clean and for dirty sessions, whether they are reset at their return: see ``RESETS``.

        A session that will be closed is not reset. Behind a transaction pooler a reset would run in the
        session of some other client.
        """
        return RESETS[self.reset if self.pooled and not self.behind else "rollback"]

    @property
    def limit(self) -> int | None:
        """The most sessions that the pool may have open at the same time; None: no limit."""
        return self.pool_size + self.max_overflow if self.pooled else None

    @property
    def bounds(self) -> Bounds | None:
        """Sizes for the queue; None: no limit."""
        if self.limit is None:
            return None
        core = self.pool_size if self.core_size is None else self.core_size
        return Bounds(
            self.limit,
            max(core, self.min_idle),
            self.min_idle,
            math.inf if self.max_waiting is None else self.max_waiting,
            self.unload_timeout,
        )

    def resized(self, alias: str, sizes: Mapping[str, Any]) -> PoolOptions:
        """Return these options with other sizes.

        :param alias: for the messages.
        :param sizes: the new values, by the names of the options.
        :raises BadPoolOption: as ``from_settings()``.
        """
        # These two must not exceed the limit, so a new limit has them checked again.
        given = {"core_size": self.core_size, "min_idle": self.min_idle, **sizes}
        return replace(self, **{key: _read(alias, key, given[key]) for key in given})._checked(alias, given)

    def _checked(self, alias: str, given: Mapping[str, Any]) -> PoolOptions:
        for key in given:
            if cure := self._objection(key):
                raise _bad(alias, f"POOL[{key!r}]", given[key], cure)
        return self

    def _objection(self, key: str) -> str | None:
        """Return the reason why an option does not fit the others, None if it does."""
        name = self.poolclass.__name__ if self.poolclass else "FairQueuePool"
        if not self.pooled and key not in WITHOUT_POOL:
            return f"leave it out: {name} keeps no sessions"
        if self.behind and key == "reset" and self.reset == "always":
            return f"leave it out: POOL['behind'] is {self.behind!r}, where no session can be reset"
        if not self.fair and key in FAIR_ONLY:
            return f"leave it out: {name} knows nothing of it, FairQueuePool does"
        if key in ("core_size", "min_idle") and (getattr(self, key) or 0) > (self.limit or 0):
            return f"take no more than pool_size + max_overflow, which is {self.limit}"
        return None


def _with_preset(alias: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options with those of the preset added. Options in the settings override the preset."""
    if "preset" not in given:
        return given
    own = {key: given[key] for key in given if key != "preset"}
    try:
        return {**PRESETS[given["preset"]], **own}
    except (KeyError, TypeError):
        names = ", ".join(repr(name) for name in PRESETS)
        raise _bad(alias, "POOL['preset']", given["preset"], f"'preset' takes one of {names}") from None


def _read(alias: str, key: object, value: object) -> Any:
    reader = READERS.get(key) if isinstance(key, str) else None
    if reader is None:
        raise _bad(alias, f"POOL[{key!r}]", value, f"unknown key; {_guess(key)}")
    try:
        return reader(value)
    except (TypeError, ValueError) as error:
        raise _bad(alias, f"POOL[{key!r}]", value, f"{key!r} takes {error}") from error


def _guess(key: object) -> str:
    name = str(key).lower()
    known = {**{name: name for name in (*READERS, "preset")}, **FOREIGN_NAMES}
    for candidate in (name, name.removeprefix("pool_"), name.removeprefix("django_")):
        if close := get_close_matches(candidate, known, n=1, cutoff=0.6):
            return f"did you mean {known[close[0]]!r}?"
    return f"known are {', '.join(READERS)}"


def _bad(alias: str, key: str, value: object, cure: str) -> BadPoolOption:
    secret = any(part in key.lower() for part in SECRETS)
    shown = "a value that is not shown here" if secret else repr(value)
    return BadPoolOption(f"DATABASES[{alias!r}]: {key} is {shown}: {cure}")


assert READERS.keys() == {field.name for field in fields(PoolOptions)}

DEFAULTS = PoolOptions()
#: The options for ``POOL: False``: the same life cycle and guards, but each session ends with its lease.
UNPOOLED = PoolOptions(poolclass=NoPool)
