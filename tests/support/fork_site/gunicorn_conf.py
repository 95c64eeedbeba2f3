"""How gunicorn serves it; the rest is on its command line."""

from __future__ import annotations

wsgi_app = "tests.support.fork_site.wsgi"
preload_app = True
workers = 2
max_requests = 6
loglevel = "info"
control_socket_disable = True


def on_exit(server: object) -> None:
    """The workers are gone, the master is about to go."""
    # Not before: with preload_app the application is to be imported by gunicorn itself.
    from tests.support.fork_site import master

    master.look_back()
