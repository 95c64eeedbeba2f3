"""Process hooks of uWSGI, which forks without Python's fork hooks and ends its master without exit handlers.

This line in ``uwsgi.ini`` may be left out, because each backend does the same when it is loaded::

    import = poollife.uwsgi

A master that has loaded the application needs two more, because no Python hook runs at its end::

    hook-as-user-atexit = call:PyGILState_Ensure
    hook-as-user-atexit = call:PyRun_SimpleString import poollife.uwsgi; poollife.uwsgi.close_pools_on_exit()

Outside of uWSGI the import has no effect. It does not import Django: a master with ``lazy-apps`` loads no
site.
"""

from __future__ import annotations

import sys

# This takes uWSGI's slot for forks. The pools take the slot for ends, when their module is loaded.
import poollife.process.atfork  # noqa: F401


def close_pools_on_exit() -> None:
    """Close the sessions of this process, which is about to end. It leaves its parent's sessions alone."""
    if pools := sys.modules.get("poollife.pools.registry"):
        pools.registry.end()
