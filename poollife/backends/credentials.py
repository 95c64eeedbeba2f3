"""Passwords that a function returns: tokens that expire (IAM), secrets that rotate (Vault)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from poollife.conf import SECRET_OPTIONS
from poollife.option_values import READERS

if TYPE_CHECKING:
    from django.db.backends.base.client import BaseDatabaseClient
else:
    BaseDatabaseClient = object

#: The keys of a dictionary that ``POOL["credentials"]`` may return in place of a password.
ANSWERS = {"USER", "PASSWORD"}


def answered(settings: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of ``DATABASES`` with the answers of its secret functions in place of the functions.

    The result is a copy, so the entry keeps the functions for the next call. Without a function the result is
    the entry itself. An error of a function reaches the caller as it is.

    :param settings: the entry of ``DATABASES``.
    :raises ImproperlyConfigured: a function returned something else than text or a dictionary of credentials.
    """
    if ask := asker_of(settings):
        return {**settings, **_read(settings, ask())}
    asked: dict[str, Any] = {}
    if callable(password := settings["PASSWORD"]):
        asked["PASSWORD"] = _text(settings, password())
    options: Mapping[str, Any] = settings["OPTIONS"] or {}
    if secrets := {key: options[key] for key in SECRET_OPTIONS if callable(options.get(key))}:
        answers = {key: _text(settings, secret()) for key, secret in secrets.items()}
        asked["OPTIONS"] = {**options, **answers}
    return {**settings, **asked} if asked else settings


def asker_of(settings: Mapping[str, Any]) -> Any:
    """Return the function that ``POOL["credentials"]`` names, or None.

    It is read from the settings, because a client such as ``dbshell`` has no ``pool_options``.
    """
    pool = settings.get("POOL")
    given = pool.get("credentials") if isinstance(pool, Mapping) else None
    return READERS["credentials"](given) if given is not None else None


def askers_in(settings: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the secret functions of an entry. Each may be a method of an object that can't be copied."""
    for part in (settings, settings["OPTIONS"] or {}, settings.get("POOL")):
        if isinstance(part, Mapping):
            yield from (
                part[key] for key in ("PASSWORD", *SECRET_OPTIONS, "credentials") if callable(part.get(key))
            )


def _read(settings: Mapping[str, Any], answer: object) -> dict[str, str]:
    if not isinstance(answer, Mapping):
        return {"PASSWORD": _text(settings, answer)}
    if not answer or answer.keys() - ANSWERS:
        # The message shows no value, and no unknown key either: that may be a secret by mistake.
        raise ImproperlyConfigured(
            f"{_place(settings)}: a dictionary of credentials has USER, PASSWORD or both, and nothing else."
        )
    return {key: _text(settings, value) for key, value in answer.items()}


def _text(settings: Mapping[str, Any], answer: object) -> str:
    if not isinstance(answer, str):
        kind = type(answer).__name__
        raise ImproperlyConfigured(
            f"{_place(settings)}: the function for the password returned no text, but {kind}."
        )
    return answer


def _place(settings: Mapping[str, Any]) -> str:
    return f"Database {settings['NAME']!r}"


class AskingClient(BaseDatabaseClient):
    """A client that calls secret functions, so that ``manage.py dbshell`` has the present password."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Any
    ) -> tuple[Sequence[str], dict[str, str] | None]:
        return super().settings_to_cmd_args_env(answered(settings_dict), parameters)


@cache
def asking_client(client_class: type[BaseDatabaseClient]) -> type[BaseDatabaseClient]:
    """Return a subclass of a backend's client class with ``AskingClient``; the class if it has that."""
    if issubclass(client_class, AskingClient):
        return client_class
    return type(client_class.__name__, (AskingClient, client_class), {"__module__": client_class.__module__})
