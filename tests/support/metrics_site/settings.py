"""Its settings."""

from __future__ import annotations

from tests.support.fork_site.settings import *  # noqa: F403

ROOT_URLCONF = "tests.support.metrics_site.urls"
