"""Django's tasks framework: with a queue in the database, and without one.

Arguments: the settings of a database, and a file for notes. Prints what was done in which session.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

FRAMEWORK = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
JOBS = 12


def set_up(entry: dict[str, Any], notes: str) -> None:
    apps = ["poollife", "tests.support.task_queue_site", "django_tasks_db"]
    site = {
        "DATABASES": {"default": entry},
        "INSTALLED_APPS": apps if FRAMEWORK == "django.tasks" else [*apps, FRAMEWORK],
        "TASKS": {
            "default": {"BACKEND": "django_tasks_db.DatabaseBackend"},
            "at once": {"BACKEND": f"{FRAMEWORK}.backends.immediate.ImmediateBackend"},
        },
    }
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.support.task_queue_site.settings",
        "TASK_QUEUE_SITE": json.dumps(site),
        "TASK_NOTES": notes,
    }
    django.setup()


def main() -> dict[str, Any]:
    from django.core.management import call_command

    from poollife import auto_close_db
    from tests.support.programs.databases import session
    from tests.support.task_queue_site.django_tasks import at_once, queued

    @auto_close_db
    def caller() -> dict[str, Any]:
        mine = session()
        used, work = at_once.enqueue().return_value
        return {"same session": used == mine == session(), "work": work}

    call_command("migrate", verbosity=0)
    for number in range(JOBS):
        queued.enqueue(number)
    call_command("db_worker", batch=True, interval=0, startup_delay=False, verbosity=0)
    return caller()


if __name__ == "__main__":
    set_up(*map(json.loads, sys.argv[1:]))
    print(json.dumps(main()))
