"""The application, as uWSGI's master loads it, or a worker by itself: with queries at import."""

from __future__ import annotations

import os

import uwsgi

from tests.support.uwsgi_site import notes

if uwsgi.worker_id():
    # lazy-apps. Such a worker opens what it has by itself, below.
    notes.born("child")

from tests.support.fork_site import master
from tests.support.fork_site.wsgi import application
from tests.support.uwsgi_site import tasks

__all__ = ["application"]

LOADER = os.getpid()


def after_fork() -> None:
    """uWSGI calls this in every process: without a master in the first worker, too."""
    notes.born("loader" if os.getpid() == LOADER else "child")


def at_exit() -> None:
    """A process ends in good order."""
    if os.getpid() == LOADER:
        master.look_back()
    notes.note("end")


if uwsgi.worker_id():
    master.held.clear()
# By hand where there is no master: uwsgidecorators refuses to be imported. Either way poollife was earlier.
if uwsgi.masterpid():
    from uwsgidecorators import postfork

    postfork(after_fork)
else:
    uwsgi.post_fork_hook = after_fork
uwsgi.atexit = at_exit
uwsgi.mule_msg_hook = tasks.mule
uwsgi.spooler = tasks.spooler
