"""Its addresses."""

from __future__ import annotations

from django.urls import path

from tests.support.fork_site import views

urlpatterns = [
    path("echo/<int:number>/", views.echo),
    path("fork/<str:how>/<int:number>/", views.fork),
]
