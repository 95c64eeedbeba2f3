"""The configuration of the demo's gunicorn: preloaded, two processes of four threads each.

The runner gives the address. No hook of poollife is needed: the backend installs its own when it loads.
"""

from demo import master

wsgi_app = "demo.wsgi"
preload_app = True  # the application, and so its first query, is loaded in the master
workers = 2
worker_class = "gthread"
threads = 4
graceful_timeout = 5
control_socket_disable = True  # a demo leaves nothing in the home directory


def on_exit(server: object) -> None:
    """Have the master query once more: its workers have ended, and it is about to end itself."""
    master.look_back()
