"""The pages: plain Django code, without a word about pools."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from django.core.paginator import Paginator
from django.db import connection, transaction
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from demo.tickets.failures import OnPurpose
from demo.tickets.forms import CommentForm, TicketForm
from demo.tickets.models import Comment, Ticket


def ticket_list(request: HttpRequest) -> HttpResponse:
    """Show one page of all tickets, or of the tickets that a search finds."""
    search = request.GET.get("q", "").strip()
    tickets = Ticket.objects.annotate(remarks=Count("comments")).order_by("-pk")
    if search:
        tickets = tickets.filter(Q(title__icontains=search) | Q(text__icontains=search) | Q(author=search))
    page = Paginator(tickets, 20).get_page(request.GET.get("page"))
    return render(request, "tickets/list.html", {"page": page, "search": search})


def detail(request: HttpRequest, number: int) -> HttpResponse:
    """Show a ticket with its comments."""
    return _detail(request, get_object_or_404(Ticket, pk=number), CommentForm())


def new_ticket(request: HttpRequest) -> HttpResponse:
    """Store a ticket and its first comment in one transaction."""
    form = TicketForm(request.POST or None)
    if not form.is_valid():
        return render(request, "tickets/new.html", {"form": form})
    with transaction.atomic():
        ticket = form.save()
        ticket.comments.create(author="desk", text=f"Thank you, {ticket.author}. We are looking into it.")
    return redirect("detail", ticket.pk)


@require_POST
def add_comment(request: HttpRequest, number: int) -> HttpResponse:
    """Store a comment in autocommit."""
    ticket = get_object_or_404(Ticket, pk=number)
    form = CommentForm(request.POST)
    if not form.is_valid():
        return _detail(request, ticket, form)
    form.instance.ticket = ticket
    form.save()
    return redirect("detail", number)


@require_POST
@transaction.atomic
def close(request: HttpRequest, number: int) -> HttpResponse:
    """Close a ticket and add a comment, with the row locked meanwhile."""
    ticket = get_object_or_404(Ticket.objects.select_for_update(), pk=number)
    ticket.closed = True
    ticket.save(update_fields=["closed"])
    ticket.comments.create(author="desk", text=f"Closed. {request.POST.get('reason', '')}".strip())
    return redirect("detail", number)


@require_POST
@transaction.atomic
def fail(request: HttpRequest, number: int) -> HttpResponse:
    """Write a comment and raise: the comment must be rolled back, and the session must return clean."""
    Comment.objects.create(ticket_id=number, author="nobody", text=request.POST.get("text", "never stored"))
    raise OnPurpose("This view fails after it has written to the database.")


class _Echo:
    """A file for ``csv.writer`` that returns each line."""

    def write(self, line: str) -> str:
        return line


def export(request: HttpRequest) -> StreamingHttpResponse:
    """Stream all comments as CSV.

    The cursor is opened here, and read while the body is sent, after this function has returned.
    """
    cursor = connection.cursor()
    cursor.execute(
        "SELECT t.id, t.title, t.closed, c.id, c.author, c.text FROM tickets_ticket t"
        " JOIN tickets_comment c ON c.ticket_id = t.id ORDER BY t.id, c.id"
    )
    headers = {"Content-Disposition": 'attachment; filename="tickets.csv"'}
    return StreamingHttpResponse(_lines(cursor), content_type="text/csv", headers=headers)


def _lines(cursor: Any) -> Iterator[str]:
    writer = csv.writer(_Echo())
    try:
        yield str(writer.writerow(["ticket", "title", "closed", "comment", "author", "text"]))
        while row := cursor.fetchone():
            yield str(writer.writerow(row))
    finally:
        cursor.close()


def _detail(request: HttpRequest, ticket: Ticket, form: CommentForm) -> HttpResponse:
    return render(request, "tickets/detail.html", {"ticket": ticket, "form": form})
