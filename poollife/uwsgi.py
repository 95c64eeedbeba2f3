"""Clock 3 under uWSGI: it forks without a word to Python, and its master ends without one.

In ``uwsgi.ini``, or left out, because each backend does the same when it is loaded::

    import = poollife.uwsgi

For a master that has loaded the application, which no slot tells of its end::

    hook-as-user-atexit = call:PyGILState_Ensure
    hook-as-user-atexit = call:PyRun_SimpleString import poollife.uwsgi; poollife.uwsgi.goodbye()

Outside uWSGI this does nothing. Django is not imported with it: a master with ``lazy-apps`` loads no site.
"""

from __future__ import annotations

import sys

# Takes uWSGI's slot for forks; the one for ends is taken by the pools, as soon as there may be any.
import poollife.process.atfork  # noqa: F401


def goodbye() -> None:
    """End this process's sessions, as it ends. Sessions of its parent are not touched."""
    if pools := sys.modules.get("poollife.pools.registry"):
        pools.registry.end()
