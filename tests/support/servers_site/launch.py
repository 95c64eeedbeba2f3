"""``python -m`` for a web server, in a process that has queried before, and queries once more in the end.

The server's name is in the environment, the arguments are its own: Django's reloader runs the same command
for its second process. Servers that spawn workers have them import this module.
"""

from __future__ import annotations

import os
import runpy
from importlib import import_module

import django

from tests.support.fork_site import master
from tests.support.programs import removal


def main() -> None:
    """Be the parent of what the server makes, or the server itself."""
    pid = os.getpid()
    django.setup()
    removal.take_out(os.environ["FORK_SITE_WITHOUT"])
    master.warm_up()
    try:
        serve()
    finally:
        if os.getpid() == pid:
            master.look_back()


def serve() -> None:
    runpy.run_module(os.environ["SERVERS_SITE_PROGRAM"], run_name="__main__")


if __name__ == "__main__":
    if os.environ.get("RUN_MAIN"):  # as the reloader marks its second process
        import_module("changing")
        serve()
    else:
        main()
