"""How the demo serves: preloaded, two processes, four threads each. The address comes from the runner.

No hook of poollife's is needed: the backend installs its own when it loads.
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
    """The workers are gone, the master is about to go."""
    master.look_back()
