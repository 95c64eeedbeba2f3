"""The page about forks: a child process makes a report."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods

from demo.tickets import children
from demo.tickets.children import Answer, ask_child
from demo.tickets.models import Ticket
from demo.tickets.sessions import session_id

Way = Callable[[Ticket, str], tuple[Answer, Answer]]


def _plain(ticket: Ticket, text: str) -> tuple[Answer, Answer]:
    answers = ask_child(children.count, finalize=False)
    ticket.comments.create(author="report", text=text)
    return answers


def _finalized(ticket: Ticket, text: str) -> tuple[Answer, Answer]:
    answers = ask_child(children.count, finalize=True)
    ticket.comments.create(author="report", text=text)
    return answers


def _together(ticket: Ticket, text: str) -> tuple[Answer, Answer]:
    answers = ask_child(children.echoes, finalize=False, meanwhile=children.echoes)
    ticket.comments.create(author="report", text=text)
    return answers


def _transaction(ticket: Ticket, text: str) -> tuple[Answer, Answer]:
    """Write the row before the fork and commit it after the fork: if the session ends, the row is lost."""
    with transaction.atomic():
        ticket.comments.create(author="report", text=text)
        return ask_child(children.intrude, finalize=True)


_WAYS: dict[str, tuple[str, Way]] = {
    "plain": ("A child counts the tickets, closes its connection and leaves", _plain),
    "finalized": ("A child counts the tickets, and frees all objects it has inherited", _finalized),
    "together": ("Parent and child query at the same time, and each checks its answers", _together),
    "transaction": ("A child is forked inside an open transaction, and tries to work in it", _transaction),
}


@require_http_methods(["GET", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """Show the page; on POST, make a report and show it."""
    result = _report(request) if request.method == "POST" else None
    if request.headers.get("Accept") == "application/json":
        return JsonResponse(result or {})
    ways = [(name, words) for name, (words, _) in _WAYS.items()]
    context = {"ways": ways, "result": result, "vendor": connection.vendor}
    return render(request, "tickets/reports.html", context)


def _report(request: HttpRequest) -> Answer:
    """Fork, and compare the session of the request before and after."""
    ticket = get_object_or_404(Ticket, pk=request.POST.get("ticket", 1))
    _, way = _WAYS.get(request.POST.get("way", ""), _WAYS["plain"])
    before = session_id()
    child, own = way(ticket, request.POST.get("text") or "A report was made.")
    answer = {"pid": os.getpid(), "before": before, "after": session_id(), "child": child}
    return answer | own | {"vendor": connection.vendor}
