"""A stub of the module that Python code finds inside uWSGI, for what no real server can be made to do.

``fork()`` and ``call()`` are the server's part: a fork in C, and a look into the module's dictionary.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback

#: The numbers of workers and of threads of each.
numproc = cores = 1
_MASTER = int(os.environ.get("UWSGI_STUB_MASTER", "1"))


_numbered: list[int] = []


def masterpid() -> int:
    """0: there is no master."""
    return os.getpid() if _MASTER else 0


def worker_id() -> int:
    """0: a master, or a process that loads the application before there are workers."""
    return len(_numbered)


def begin() -> None:
    """Make this process the first worker, without a master."""
    _numbered.append(1)


def fork() -> int:
    """Fork as the server does; the child has called its slot when this returns."""
    pid: int = ctypes.PyDLL(None).fork()
    if not pid:
        call("post_fork_hook")
    return pid


def call(slot: str) -> None:
    """Call what is in a slot, if anything is; the server prints what that raises, and goes on."""
    hook = vars(sys.modules[__name__]).get(slot)
    if hook is not None:
        try:
            hook()
        except Exception:
            traceback.print_exc()
