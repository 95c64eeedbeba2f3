"""Its settings: those of the site that it shows."""

from __future__ import annotations

from tests.support.fork_site.settings import *  # noqa: F403

ROOT_URLCONF = "tests.support.uwsgi_site.urls"
