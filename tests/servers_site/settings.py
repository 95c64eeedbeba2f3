"""Its settings: those of the site that it shows."""

from __future__ import annotations

from tests.fork_site.settings import *  # noqa: F403

ROOT_URLCONF = "tests.servers_site.urls"
WSGI_APPLICATION = "tests.servers_site.wsgi.application"
