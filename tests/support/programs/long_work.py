"""A management command, during which hours pass between any two statements.

Arguments: the settings of a database, a folder, and the command. Prints what the clock did.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

ENTRY: dict[str, Any] = json.loads(sys.argv[1])
DUMP = Path(json.loads(sys.argv[2]), "dump.json")

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.support.ecosystem_site.settings"
os.environ["ECOSYSTEM_SITE"] = json.dumps({"DATABASES": {"default": ENTRY}})
django.setup()

from django.db import connection, transaction  # noqa: E402  # models need settings

from tests.support.ecosystem_site.desk.models import Ticket  # noqa: E402
from tests.support.programs.clock import clock  # noqa: E402
from tests.support.programs.databases import session  # noqa: E402


def migrate() -> None:
    call_command("migrate", verbosity=0)
    assert Ticket.objects.count() == 2


def dumpdata() -> None:
    call_command("dumpdata", "desk", output=str(DUMP))
    assert len(json.loads(DUMP.read_text())) == 3


def loaddata() -> None:
    # In a transaction of the caller's: without one it closes the connection when it is done.
    with transaction.atomic():
        call_command("loaddata", str(DUMP), verbosity=0)
        assert Ticket.objects.count() == 2


def inspectdb() -> None:
    models = io.StringIO()
    call_command("inspectdb", stdout=models)
    assert "class DeskTicket(" in models.getvalue()


def stocktake() -> None:
    call_command("stocktake")


COMMANDS: dict[str, Callable[[], None]] = {
    command.__name__: command for command in (migrate, inspectdb, dumpdata, loaddata, stocktake)
}


def prepare(command: str) -> None:
    """Have there what the command finds on a real site, and give back what that took."""
    if command != "migrate":
        migrate()
    if command == "loaddata":
        dumpdata()
    connection.close()


def pings() -> int:
    """How often this session was pinged."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Com_do'")
        return int(cursor.fetchone()[1])


def main() -> None:
    command = json.loads(sys.argv[3])
    prepare(command)
    # Without that, what Django asks about the server first would be a borrowing of its own.
    first, pings_before = session(), pings()
    with clock.running_fast():
        COMMANDS[command]()
        last, pings_after = session(), pings()
    connection.close()
    clock.pass_hours()
    later, pings_later = session(), pings()
    connection.close()
    print(
        json.dumps(
            {
                "sessions": [first, last, later],
                "pings": [pings_before, pings_after, pings_later],
                "rests": clock.rests,
                "neighbours": clock.neighbours,
            }
        )
    )


if __name__ == "__main__":
    main()
