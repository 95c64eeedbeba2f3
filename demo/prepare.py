"""Create the tables and fill them, in a process of its own: `python -m demo.prepare`."""

from __future__ import annotations

import os

import django
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import connection

from demo.tickets import samples


def main() -> None:
    """Migrate and seed."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from demo.tickets.models import Ticket  # models need django.setup()

    if not Ticket.objects.exists():
        _seed(range(1, samples.TICKETS + 1))


def _seed(numbers: range) -> None:
    from demo.tickets.models import Comment, Ticket

    Ticket.objects.bulk_create(
        Ticket(
            pk=number,
            title=samples.title(number),
            author=samples.author(number),
            text=samples.text(number),
            closed=number % 3 == 0,
        )
        for number in numbers
    )
    Comment.objects.bulk_create(
        Comment(ticket_id=number, author=author, text=text)
        for number in numbers
        for author, text in samples.remarks(number)
    )
    # The tickets have brought their numbers along. PostgreSQL's sequence knows nothing of these.
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), [Ticket]):
            cursor.execute(statement)


if __name__ == "__main__":
    main()
