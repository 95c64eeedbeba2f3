"""Start Django with the settings in DJANGO_SETTINGS_MODULE: system checks, and a query to each database."""

from __future__ import annotations

import django
from django.core.management import call_command
from django.db import connections

if __name__ == "__main__":
    django.setup()
    # The database's own checks, too, of which Django runs none unless asked.
    call_command("check", fail_level="WARNING", databases=list(connections))
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
        connections[alias].close()
