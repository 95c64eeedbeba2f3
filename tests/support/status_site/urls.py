"""Its addresses: the status page, and pages that keep a connection."""

from __future__ import annotations

from django.urls import include, path

from tests.support.status_site import views

urlpatterns = [
    path("pools/", include("poollife.urls")),
    path("quick/", views.quick),
    path("late/", views.late),
    path("<path:name>", views.hold),
]
