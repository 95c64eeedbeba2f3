"""The app's name for Django."""

from __future__ import annotations

from django.apps import AppConfig


class TicketsConfig(AppConfig):
    """The configuration of the app with the tickets and their comments."""

    name = "demo.tickets"
