"""The URLs of the ticket desk, and two for the runner."""

from __future__ import annotations

from django.urls import path

from demo.tickets import probes, reports, views

urlpatterns = [
    path("", views.ticket_list, name="list"),
    path("new/", views.new_ticket, name="new"),
    path("export.csv", views.export, name="export"),
    path("tickets/<int:number>/", views.detail, name="detail"),
    path("tickets/<int:number>/comment/", views.add_comment, name="comment"),
    path("tickets/<int:number>/close/", views.close, name="close"),
    path("tickets/<int:number>/fail/", views.fail, name="fail"),
    path("reports/", reports.page, name="reports"),
    path("echo/<slug:word>/", probes.echo, name="echo"),
    path("__pool__/", probes.pool, name="pool"),
]
