"""Run a page's code as it stands, in the site with a shop of three orders.

Complains if a thread that the code started has kept a connection. With ``--issues`` the first line
tells what the system checks find, by ids.
"""

from __future__ import annotations

import atexit
import runpy
import sys

import django
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections

from poollife import pool_stats


def prepare() -> None:
    """Three orders, and no connection out."""
    from shop.models import Order  # type: ignore[import-not-found]  # on the path of this program only

    call_command("migrate", run_syncdb=True, verbosity=0)
    Order.objects.all().delete()
    Order.objects.bulk_create([Order(number=number) for number in (1, 2, 3)])
    connections.close_all()


def look() -> None:
    """Exit handlers run when all threads have ended, those of executors too."""
    connections.close_all()
    if kept := sum(stats["out"] for stats in pool_stats().values()):
        print(f"{kept} connections were kept", file=sys.stderr)


if __name__ == "__main__":
    django.setup()
    if "--issues" in sys.argv:
        print(*sorted(str(issue.id) for issue in run_checks() if not issue.is_silenced()))
    prepare()
    atexit.register(look)
    runpy.run_path(sys.argv[1], run_name="__main__")
