"""The addresses of the status page: ``path("pools/", include("poollife.urls"))``."""

from __future__ import annotations

from django.urls import path

from poollife.status_page import views

app_name = "poollife"
urlpatterns = [
    path("", views.page, name="status"),
    path("status.json", views.as_json, name="status-json"),
    *(path(name, views.asset, {"name": name}) for name in views.ASSETS),
]
