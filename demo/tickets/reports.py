"""The page about forks: reports that a child process makes."""

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
    """The row is written before the fork and committed after it: without the session it would be lost."""
    with transaction.atomic():
        ticket.comments.create(author="report", text=text)
        return ask_child(children.intrude, finalize=True)


_WAYS: dict[str, tuple[str, Way]] = {
    "plain": ("A child counts the tickets, closes its connection and leaves", _plain),
    "finalized": ("The same, and the child frees everything it has inherited", _finalized),
    "together": ("Parent and child query at the same time, and check whose answers they get", _together),
    "transaction": ("A child is forked inside an open transaction, and tries to work in it", _transaction),
}


@require_http_methods(["GET", "POST"])
def page(request: HttpRequest) -> HttpResponse:
    """Explain the reports; on POST, make one."""
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
