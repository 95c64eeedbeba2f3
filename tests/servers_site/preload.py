"""What gunicorn's master does where it loads the application."""

from __future__ import annotations

import gc
import os

from tests.fork_site import master
from tests.programs import removal

#: Otherwise each worker loads it by itself.
preloads = bool(os.environ.get("SERVERS_SITE_PRELOAD"))


def warm_up() -> None:
    """Query, as sites do at import."""
    removal.take_out(os.environ["FORK_SITE_WITHOUT"])
    if preloads:
        # As sites that preload do, so that the workers share their memory.
        gc.freeze()
        master.warm_up()
