"""What a process does when it has loaded the application: gunicorn's master, or a worker."""

from __future__ import annotations

import gc
import os

from tests.support.fork_site import master
from tests.support.programs import removal

#: Whether that is the master.
preloads = bool(os.environ.get("SERVERS_SITE_PRELOAD"))


def settle() -> None:
    """A master that preloads queries, as sites do at import."""
    removal.take_out(os.environ["FORK_SITE_WITHOUT"])
    # So that children share this memory, and need not copy all of it when they collect garbage.
    gc.freeze()
    if preloads:
        master.warm_up()
