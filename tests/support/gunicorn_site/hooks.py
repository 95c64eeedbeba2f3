"""Hooks that a configuration imports."""

from __future__ import annotations

from typing import Any

from tests.support.gunicorn_site.notes import note

__all__ = ["nworkers_changed"]


def nworkers_changed(server: Any, new: int, old: int | None) -> None:
    note("user.nworkers_changed")
