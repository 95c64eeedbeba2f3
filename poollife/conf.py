"""``DATABASES[alias]["POOL"]``: read once, checked, and frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from django.utils.module_loading import import_string
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, QueuePool

from poollife.errors import BadPoolOption
from poollife.pools.queue import FairQueuePool
from poollife.pools.sqlalchemy import acts_by_itself

#: What other pools call our settings; difflib alone would not find them.
FOREIGN_NAMES = {
    "size": "pool_size",
    "min_size": "pool_size",
    "max_size": "max_overflow",
    "max_connections": "max_overflow",
    "overflow": "max_overflow",
    "max_lifetime": "recycle",
    "conn_max_age": "recycle",
    "class": "poolclass",
    "ping": "pre_ping",
    "reset_on_return": "reset",
    "leak_detection_threshold": "leak_after",
    "unreturned_connection_timeout": "leak_after",
    "password": "credentials",
}

#: Keys of ``OPTIONS`` that overrule ``PASSWORD``.
SECRET_OPTIONS = ("password", "passwd")
#: Parts of keys whose values no message repeats.
SECRETS = ("pass", "secret", "token", "credential", "key")

#: Whether a session that comes back is reset: if it is clean, and if something may have been left in it.
RESETS = {"auto": (False, True), "always": (True, True), "rollback": (False, False)}


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How one pool behaves. The names are SQLAlchemy's."""

    #: Sessions kept open once they were needed.
    pool_size: int = 5
    #: Sessions opened beyond ``pool_size`` in a burst; the two together are the limit per process.
    max_overflow: int = 10
    #: Seconds to wait for a free connection. Under gunicorn's 30, so that our error comes before its kill.
    timeout: float = 10.0
    #: Seconds after which a session is replaced; -1 never; None: below the server's own ``wait_timeout``.
    recycle: int | None = None
    #: Seconds of idleness after which a session is pinged before it is handed out.
    ping_idle: float = 30.0
    #: Ping at each checkout.
    pre_ping: bool = False
    #: What is done to a session when it comes back: see ``RESETS``.
    reset: str = "auto"
    #: Seconds after which the log tells of a connection that is still out; None: never. Implies ``trace``.
    leak_after: float | None = None
    #: Remember the line that borrowed each connection.
    trace: bool = False
    #: Measure for how long connections are out, too.
    stats: bool = False
    #: Asked for each session that is opened: gives the password, or a dictionary with USER and PASSWORD.
    credentials: Callable[[], Any] | None = None
    #: A subclass of SQLAlchemy's QueuePool or NullPool.
    poolclass: type[Pool] = FairQueuePool

    @classmethod
    def from_settings(cls, alias: str, settings: Mapping[str, Any]) -> PoolOptions:
        """Read one entry of ``DATABASES``.

        :param alias: the key of that entry, for the messages.
        :raises BadPoolOption: names the alias, the key, the value and the nearest right key.
        """
        if "pool" in (settings.get("OPTIONS") or {}):
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
        return cls(**{key: _read(alias, key, value[key]) for key in value})._checked(alias, value)

    @property
    def pooled(self) -> bool:
        """Whether sessions outlive their borrower."""
        return issubclass(self.poolclass, QueuePool)

    @property
    def resets(self) -> tuple[bool, bool]:
        """Whether a session that comes back is reset: see ``RESETS``. One that will be closed is not."""
        return RESETS[self.reset if self.pooled else "rollback"]

    @property
    def limit(self) -> int | None:
        """The most sessions that a process may have open at once; None: no limit."""
        return self.pool_size + self.max_overflow if self.pooled else None

    def _checked(self, alias: str, given: Mapping[str, Any]) -> PoolOptions:
        if not self.pooled:
            for key in given:
                if key not in ("poolclass", "credentials"):
                    cure = f"leave it out: {self.poolclass.__name__} keeps no sessions"
                    raise _bad(alias, f"POOL[{key!r}]", given[key], cure)
        return self


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
    known = {**{name: name for name in READERS}, **FOREIGN_NAMES}
    for candidate in (name, name.removeprefix("pool_")):
        if close := get_close_matches(candidate, known, n=1, cutoff=0.6):
            return f"did you mean {known[close[0]]!r}?"
    return f"known are {', '.join(READERS)}"


def _bad(alias: str, key: str, value: object, cure: str) -> BadPoolOption:
    secret = any(part in key.lower() for part in SECRETS)
    shown = "what is not shown here" if secret else repr(value)
    return BadPoolOption(f"DATABASES[{alias!r}]: {key} is {shown}: {cure}")


def _integer(minimum: int, meaning: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        # bool is an int, but "pool_size": True is a slip.
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"a whole number from {minimum}, {meaning}")
        return value

    return read


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError("a finite number of seconds from 0; waiting for ever is not offered")
    return float(value)


def _recycle(value: object) -> int | None:
    if value is None:
        return None
    number = _integer(-1, "in seconds, or -1 for never, or None for below the server's wait_timeout")(value)
    if number == 0:
        raise ValueError("at least one second, or -1 for never")
    return number


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("True or False")
    return value


def _leak_after(value: object) -> float | None:
    if value is None:
        return None
    if (seconds := _seconds(value)) == 0:
        raise ValueError("more than 0 seconds, or None for no warnings")
    return seconds


def _reset(value: object) -> str:
    if not isinstance(value, str) or value not in RESETS:
        raise ValueError('"auto", "always" or "rollback"')
    return value


def _credentials(value: object) -> Callable[[], Any] | None:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            # Somebody may have put the password itself here, which no message must repeat. What is missing
            # inside of a module that was found is told.
            if error.name and not str(value).startswith(error.name):
                raise ValueError(f"a dotted path that can be imported ({error})") from error
            value = None
        except (TypeError, ValueError):
            value = None
        if not callable(value):
            raise ValueError("a function, or the dotted path of one that can be imported") from None
    if not (value is None or callable(value)):
        raise TypeError("a function, or the dotted path of one")
    return value


def _poolclass(value: object) -> type[Pool]:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except (ImportError, TypeError, ValueError) as error:
            raise ValueError(f"a dotted path that can be imported ({error})") from error
    if not isinstance(value, type) or not issubclass(value, QueuePool | NullPool):
        raise TypeError("a subclass of sqlalchemy.pool.QueuePool or NullPool, or the dotted path of one")
    if issubclass(value, AsyncAdaptedQueuePool):
        raise TypeError("a pool for threads; AsyncAdaptedQueuePool is made for asyncio drivers")
    _try_out(value)
    return value


def _try_out(poolclass: type[Pool]) -> None:
    try:
        sessions = poolclass(lambda: None, reset_on_return=None)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"a class that takes what QueuePool takes ({error})") from error
    if acts_by_itself(sessions):
        raise ValueError("a class without pre-ping and reset of its own: leave that to POOL")


READERS: dict[str, Callable[[object], Any]] = {
    "pool_size": _integer(1, "the sessions kept open"),
    "max_overflow": _integer(0, "the sessions opened beyond pool_size in a burst"),
    "timeout": _seconds,
    "recycle": _recycle,
    "ping_idle": _seconds,
    "pre_ping": _flag,
    "reset": _reset,
    "leak_after": _leak_after,
    "trace": _flag,
    "stats": _flag,
    "credentials": _credentials,
    "poolclass": _poolclass,
}
assert READERS.keys() == {field.name for field in fields(PoolOptions)}

DEFAULTS = PoolOptions()
#: ``POOL: False``: the same life cycle and the same guards, but each session ends with its lease.
UNPOOLED = PoolOptions(poolclass=NullPool)
