"""The app's name for Django."""

from __future__ import annotations

from django.apps import AppConfig


class TicketsConfig(AppConfig):
    """Tickets and their comments."""

    name = "demo.tickets"
