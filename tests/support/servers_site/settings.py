"""Its settings: those of the site that it shows."""

from __future__ import annotations

from tests.support.fork_site.settings import *  # noqa: F403

ROOT_URLCONF = "tests.support.servers_site.urls"
WSGI_APPLICATION = "tests.support.servers_site.wsgi.application"
