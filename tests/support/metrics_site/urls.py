"""Its addresses."""

from __future__ import annotations

from django.urls import path

from tests.support.metrics_site import metrics

urlpatterns = [path("echo/<int:number>/", metrics.echo), path("metrics", metrics.scrape)]
