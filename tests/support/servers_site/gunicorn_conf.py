"""How gunicorn serves it; the rest is on its command line."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

preload_app = bool(os.environ.get("SERVERS_SITE_PRELOAD"))
loglevel = "info"
control_socket_disable = True

if os.environ.get("SERVERS_SITE_GEVENT"):
    # Ahead of the application that the master loads: its workers would patch too late.
    import_module("gevent.monkey").patch_all()


def pre_fork(server: object, worker: object) -> None:
    mark("made")


def post_worker_init(worker: object) -> None:
    mark("ready")


def mark(what: str) -> None:
    """Tell that a worker is in the making, or made."""
    with Path(os.environ["FORK_SITE_FOLDER"], "workers").open("a") as file:
        file.write(f"{what} ")


def on_exit(server: object) -> None:
    """The workers are gone, the master is about to go."""
    if preload_app:
        # Not before: the application is to be imported by gunicorn itself.
        from tests.support.fork_site import master

        master.look_back()
