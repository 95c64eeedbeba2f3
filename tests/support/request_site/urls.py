"""Its pages."""

from django.urls import path

from tests.support.request_site import views

urlpatterns = [
    path("stats", views.stats),
    path("plain", views.plain),
    path("error", views.error),
    path("missing", views.missing),
    path("download/<int:megabytes>", views.download),
    path("numbers/<int:last>", views.numbers),
    path("rows/<int:count>", views.rows),
    path("rows_async/<int:count>", views.rows_async),
    path("sleep/<int:seconds>", views.sleep),
    path("bad", views.bad),
    path("why", views.why),
    path("plain_async", views.plain_async),
    path("hold_async", views.hold_async),
]
