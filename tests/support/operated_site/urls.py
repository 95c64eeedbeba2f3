"""Its addresses: one for each work."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from tests.support.operated_site import works


def view(work: Callable[..., works.Report]) -> Callable[..., HttpResponse]:
    """Return a view that does this work."""

    def respond(request: HttpRequest, **arguments: object) -> HttpResponse:
        return JsonResponse(work(**arguments))

    return respond


urlpatterns = [
    path("echo/<int:number>/", view(works.echo)),
    path("hold/<str:name>/", view(works.hold)),
    path("pay/<str:name>/<str:alias>/", view(works.pay)),
    path("export/<str:name>/", view(works.export)),
    path("freeze/<str:name>/", view(works.freeze)),
]
