"""Process hooks of uWSGI, which forks without Python's fork hooks and ends its master without exit handlers.

A line in ``uwsgi.ini``::

    import = poollife.uwsgi

Sessions are safe without it, because each backend takes part in uWSGI's forks when it is loaded. With it, the
first worker logs a line that compares the sessions that all workers may open with the server's limit.

A master that has loaded the application needs two more, because no Python hook runs at its end::

    hook-as-user-atexit = call:PyGILState_Ensure
    hook-as-user-atexit = call:PyRun_SimpleString import poollife.uwsgi; poollife.uwsgi.close_pools_on_exit()

Outside of uWSGI the import has no effect. It does not import Django: a master with ``lazy-apps`` loads no
site.
"""

from __future__ import annotations

import sys
from typing import Any

# This takes uWSGI's slot for forks. The pools take the slot for ends, when their module is loaded.
import poollife.process.atfork  # noqa: F401
from poollife import start_line
from poollife.process import uwsgi


def close_pools_on_exit() -> None:
    """Close the sessions of this process, which is about to end. It leaves its parent's sessions alone."""
    if pools := sys.modules.get("poollife.pools.registry"):
        pools.registry.end()


def announce() -> None:
    """Log how many sessions all workers may open, and how many each database server allows.

    Only the first worker does so, in its first life, and only if it has loaded the site. With ``lazy-apps``
    uWSGI calls its hooks before it loads the site, so ``wsgi.py`` has to call this at its end.
    """
    module: Any = sys.modules.get("uwsgi")
    if not module or module.worker_id() != 1:
        return
    # Without a master no worker is replaced, and uWSGI does not count.
    if not module.masterpid() or module.workers()[0]["respawn_count"] == 0:
        start_line.announce(start_line.Server("uWSGI", "workers", module.numproc, module.cores))


uwsgi.last_after_fork(announce)
