"""Settings as parts of a pool's key, and copies of settings to compare later ones with."""

from __future__ import annotations

from typing import Any

from poollife.conf import SECRET_OPTIONS


def containers_of(value: Any) -> Any:
    """Return a copy of a setting with copies of its dictionaries, lists and sets; other objects are shared.

    The copy is equal to the setting until code changes one of these in place.
    """
    if isinstance(value, dict):
        return {key: containers_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [containers_of(item) for item in value]
    if isinstance(value, tuple):
        return tuple(containers_of(item) for item in value)
    return set(value) if isinstance(value, set) else value


def freeze_options(options: dict[str, Any]) -> Any:
    """Return ``freeze()`` of OPTIONS without secrets, which make no difference between two sessions."""
    return frozenset((key, freeze(item)) for key, item in options.items() if key not in SECRET_OPTIONS)


#: The value of ``freeze_options()`` for empty OPTIONS.
NO_OPTIONS: frozenset[Any] = frozenset()


def freeze(value: Any) -> Any:
    """Return a hashable value for a setting: equal settings have equal values."""
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
