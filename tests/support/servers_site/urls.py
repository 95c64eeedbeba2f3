"""Its addresses."""

from __future__ import annotations

from django.urls import path

from tests.support.fork_site.views import fork
from tests.support.servers_site import views

urlpatterns = [
    path("echo/<int:number>/", views.echo),
    path("async/<int:number>/", views.async_echo),
    path("fork/<str:how>/<int:number>/", fork),
]
