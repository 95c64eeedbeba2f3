"""The values of ``POOL``, read and checked one by one; an error says what the key takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool

#: The part of a server among others: it takes writes, or only reads.
Role = Literal["primary", "replica"]
#: The values of ``reset``: whether a clean session, and whether a dirty session, is reset at its return.
RESETS = {"auto": (False, True), "always": (True, True), "rollback": (False, False)}
#: The fields of an ``application_name``.
NAME_FIELDS = ("alias", "host", "pid")
#: Seconds, the most that Linux takes for the parts of a ``network_timeout``.
LONGEST_SILENCE = 32767


def _integer(minimum: int, meaning: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        # bool is an int, but "pool_size": True is a mistake.
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"a whole number from {minimum}, {meaning}")
        return value

    return read


def _interval(value: object) -> float:
    if not (seconds := _seconds(value)):
        raise ValueError("a finite number of seconds, more than 0")
    return seconds


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else read(value)


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


def _network_timeout(value: object) -> float:
    if not 0 < (seconds := _seconds(value)) <= LONGEST_SILENCE:
        raise ValueError(f"more than 0 seconds, up to {LONGEST_SILENCE}, or None for the system's own limits")
    return seconds


def _reset(value: object) -> str:
    if not isinstance(value, str) or value not in RESETS:
        raise ValueError('"auto", "always" or "rollback"')
    return value


def _release(value: object) -> str:
    if value not in ("work", "statement"):
        raise ValueError('"work" or "statement"')
    return str(value)


def _role(value: object) -> str | None:
    if value not in (None, "primary", "replica"):
        raise ValueError('"primary", "replica", or None for either')
    return None if value is None else str(value)


def _behind(value: object) -> str | None:
    if value not in (None, "transaction_pooler"):
        raise ValueError('"transaction_pooler", or None for the server itself and all other proxies')
    return None if value is None else str(value)


def _application_name(value: object) -> str | None:
    if value is None:
        return None
    try:
        if isinstance(value, str) and value.format(**dict.fromkeys(NAME_FIELDS, "")) is not None:
            return value
    except (LookupError, ValueError, AttributeError):
        pass
    raise ValueError("a text such as 'shop {pid}', with no other fields than {alias}, {host} and {pid}")


def _credentials(value: object) -> Callable[[], Any] | None:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            # The value may be the password itself, by mistake, and no message must repeat that. If a module
            # was found, and another module is missing inside of it, the message names the latter.
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
    # Imported here: without this option, SQLAlchemy is not imported before the first checkout.
    from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool

    if isinstance(value, str):
        try:
            value = import_string(value)
        except (ImportError, TypeError, ValueError) as error:
            raise ValueError(f"a dotted path that can be imported ({error})") from error
    if not isinstance(value, type) or not issubclass(value, QueuePool | NullPool):
        raise TypeError("a subclass of sqlalchemy.pool.QueuePool or NullPool, or the dotted path of one")
    if issubclass(value, AsyncAdaptedQueuePool):
        raise TypeError("a pool for threads; AsyncAdaptedQueuePool is made for asyncio drivers")
    try:
        sessions = value(lambda: None, reset_on_return=None)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(f"a class that takes what QueuePool takes ({error})") from error
    if _acts_by_itself(sessions):
        raise ValueError("a class without pre-ping and reset of its own: leave that to POOL")
    return value


def _acts_by_itself(pool: Pool) -> bool:
    """Return whether a pool pings or resets of its own accord, for which it would need a dialect."""
    from sqlalchemy.pool.base import ResetStyle

    return pool._pre_ping or pool._reset_on_return is not ResetStyle.reset_none


READERS: dict[str, Callable[[object], Any]] = {
    "pool_size": _integer(1, "the sessions kept open"),
    "max_overflow": _integer(0, "the sessions opened beyond pool_size in a burst"),
    "core_size": _or_none(_integer(0, "the sessions kept open, or None for pool_size")),
    "min_idle": _integer(0, "the sessions held ready"),
    "unload_timeout": _seconds,
    "retire_interval": _interval,
    "retire_quantity": _integer(1, "the sessions closed at a time"),
    "max_pool_idle": _or_none(_interval),
    "timeout": _seconds,
    "outage_wait": _seconds,
    "max_waiting": _or_none(_integer(0, "the checkouts that may wait at a time, or None for any number")),
    "recycle": _recycle,
    "ping_idle": _seconds,
    "pre_ping": _flag,
    "network_timeout": _or_none(_network_timeout),
    "reset": _reset,
    "release": _release,
    "lazy_begin": _flag,
    "role": _role,
    "behind": _behind,
    "application_name": _application_name,
    "leak_after": _leak_after,
    "trace": _flag,
    "stats": _flag,
    "credentials": _credentials,
    "poolclass": _poolclass,
}
