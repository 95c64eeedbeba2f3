"""Views that query."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from tests.support.ecosystem_site.desk.models import Customer, Ticket


def titles(request: HttpRequest) -> HttpResponse:
    """All of them."""
    return HttpResponse(" ".join(Ticket.objects.order_by("id").values_list("title", flat=True)))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """The same, read while it is sent."""

    def lines() -> Iterator[str]:
        for ticket in Ticket.objects.order_by("id").iterator():
            yield f"{ticket.title} "

    return StreamingHttpResponse(lines())


def endless(request: HttpRequest) -> StreamingHttpResponse:
    """More than fits into a socket's buffers."""

    def lines() -> Iterator[str]:
        while True:
            yield str(Ticket.objects.count()) * 100_000

    return StreamingHttpResponse(lines())


def open_ticket(request: HttpRequest) -> HttpResponse:
    """Write something."""
    with transaction.atomic():
        customer, _ = Customer.objects.get_or_create(name="from the web")
        Ticket.objects.create(customer=customer, title=request.GET["title"])
    return HttpResponse("done")


urlpatterns = [
    path("titles", titles),
    path("stream", stream),
    path("endless", endless),
    path("open", open_ticket),
]
