"""A command that takes its time."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connection, transaction

from tests.support.ecosystem_site.desk.models import Customer, Ticket
from tests.support.programs.clock import clock


class Command(BaseCommand):
    """Goes through all tickets, and rests in every place where a connection may be open meanwhile."""

    def handle(self, *args: Any, **options: Any) -> None:
        for ticket in Ticket.objects.order_by("id").iterator(chunk_size=1):
            clock.rest()
            Ticket.objects.filter(id=ticket.pk).update(done=True)
        with transaction.atomic():
            customer = Customer.objects.create(name="found while counting")
            clock.rest()
            with transaction.atomic():
                clock.rest()
                Ticket.objects.create(customer=customer, title="missing")
            clock.rest()
        self.read_row_by_row()
        clock.rest()
        assert Ticket.objects.filter(done=True).count() == 2

    def read_row_by_row(self) -> None:
        """With the driver's server-side cursor, which Django has no name for on MySQL."""
        from MySQLdb.cursors import SSCursor

        connection.ensure_connection()
        with connection.connection.cursor(SSCursor) as cursor:
            cursor.execute("SELECT seq, REPEAT('x', 20000) FROM seq_1_to_300")
            for number, row in enumerate(cursor, start=1):
                assert row[0] == number
                if number % 50 == 0:
                    clock.rest()
