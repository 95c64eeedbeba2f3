"""Its pages: each way of working at ``stock/<way>``, ``by_hand/<way>`` and ``wrapped/<way>``."""

from django.urls import path

from tests.support.request_site.views import plain, stats
from tests.support.threads_site import questions, views

urlpatterns = [
    path("stats", stats),
    path("plain", plain),
    path("settle", views.settle),
    path("stream", views.stream),
    path("question/stream/<int:number>", questions.stream),
    path("question/<str:way>/<int:number>", questions.question),
    *(path(f"stock/{name}", view) for name, view in views.STOCK.items()),
    *(path(f"by_hand/{name}", view) for name, view in views.BY_HAND.items()),
    *(path(f"wrapped/{name}", view) for name, view in views.WRAPPED.items()),
]
