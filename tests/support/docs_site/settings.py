"""The settings of a site with a shop, for the blocks that are code."""

from __future__ import annotations

import os

from tests.support.docs_site.base import *  # noqa: F403  # that is what the module is for
from tests.support.docs_site.base import fill_in

INSTALLED_APPS = ["poollife", "shop", *os.environ.get("DOCS_SITE_APPS", "").split()]
DATABASES = {
    "default": {
        "ENGINE": "poollife.backends.mysql",
        "NAME": "shop",
        "POOL": {"pool_size": 2, "max_overflow": 2, "timeout": 5},
    },
    "file": {"ENGINE": "poollife.backends.sqlite3", "NAME": "shop.sqlite3"},
}
fill_in(DATABASES)
