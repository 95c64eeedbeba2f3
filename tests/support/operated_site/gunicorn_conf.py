"""How gunicorn serves it: preloaded, three workers of three threads."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import poollife.gunicorn

wsgi_app = "tests.support.operated_site.wsgi"
worker_class = "gthread"
workers = 3
threads = 3
preload_app = True
# A worker that hangs stays until the test ends it.
timeout = 0
graceful_timeout = 1
loglevel = "info"
control_socket_disable = True


def post_worker_init(worker: object) -> None:
    """Have the worker answer SIGUSR2 with a file: for that it needs Python's lock, and nothing else."""
    folder = Path(json.loads(os.environ["OPERATED_SITE"])["folder"])
    signal.signal(signal.SIGUSR2, lambda *_: (folder / f"alive-{os.getpid()}").touch())
    (folder / f"worker-{os.getpid()}").touch()


poollife.gunicorn.install(globals())
