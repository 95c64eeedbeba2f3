"""URLs with those of the debug toolbar, and a page that it can write itself into."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.support.ecosystem_site.desk.models import Ticket


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"<html><body>{Ticket.objects.count()}</body></html>")


urlpatterns = [path("page", page), *debug_toolbar_urls()]
