"""Thread and process hooks of Celery: a task ends, a worker's processes begin and end.

The app in ``INSTALLED_APPS`` calls ``install()``. A site without the app calls it at the end of its
``celery.py``::

    import poollife.celery; poollife.celery.install()

Sessions are safe without it, across every fork, and Celery's own support of Django closes the connections of
a task's thread when the task is over. This module returns the sessions that Celery leaves open:
``docs/tasks.md``.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from poollife import start_line
from poollife.fork import close
from poollife.pools import live
from poollife.pools.registry import registry
from poollife.work import Work, current_work


def install() -> None:
    """Connect poollife's receivers to Celery's signals when a worker starts.

    A second call changes nothing. In a process that is no worker it has no effect.
    """
    # `celery worker` sends this first.
    signals.celeryd_init.connect(connect)
    # A worker that a program embeds sends this first.
    signals.worker_init.connect(connect)
    # A child that was spawned, as on macOS, sends only this.
    signals.worker_process_init.connect(connect)


def connect(**_: Any) -> None:
    """Connect poollife's receivers.

    The worker has imported the site's modules by now, so the site's receivers are connected. Ours come behind
    them, to return the sessions that they borrow, and ahead of Celery's own support of Django.
    """
    signals.worker_process_init.connect(give_back)
    for signal in OUTSIDE_TASKS:
        signal.connect(give_back)
    signals.worker_ready.connect(announce)
    signals.task_prerun.connect(begin_task)
    # Twice: if a time limit raises its exception in the first, Celery goes on with the second.
    signals.task_postrun.connect(end_task)
    signals.task_postrun.connect(end_task, dispatch_uid="poollife, once more")
    signals.task_internal_error.connect(end_broken_task)
    signals.worker_process_shutdown.connect(close_pools_on_exit)
    # In a spawned child the site's receivers may have been called before this.
    give_back()


#: The signals that a worker sends in the thread that receives tasks, and never from within a task.
OUTSIDE_TASKS = (
    signals.worker_ready,
    signals.task_received,
    signals.task_revoked,
    signals.task_rejected,
    signals.task_unknown,
)


def give_back(**_: Any) -> None:
    """Return the sessions that receivers, or the storing of a result, have borrowed in this thread.

    At the start of a process this comes before Celery's own support of Django, which closes the descriptor of
    a connection that it finds borrowed. The system would give that number to the next file or socket, and two
    objects would write into it.
    """
    live.release(None)


def announce(sender: Any, **_: Any) -> None:
    """Log how many sessions all processes may open, and how many each database server allows.

    The worker's main process does so. With children it runs no task: it closes the pools that it made to ask.

    :param sender: Celery's consumer.
    """
    from celery.concurrency.prefork import TaskPool

    worker = sender.controller
    # With --autoscale there may be more than at the start.
    most = worker.max_concurrency or worker.concurrency
    has_children = isinstance(sender.pool, TaskPool)
    processes, threads = (most, 1) if has_children else (1, most)
    used = {pool.key.alias for pool in registry.pools()}
    start_line.announce(start_line.Server("Celery", "processes", processes, threads))
    if has_children:
        for alias in {pool.key.alias for pool in registry.pools()} - used:
            close(alias, "its Celery worker has children for the tasks")


def begin_task(sender: Any, task_id: str, **_: Any) -> None:
    """Begin the work of a task: the sessions that this thread borrows from here on belong to the task."""
    # An eager task runs within other work, such as a request, and its sessions end with that.
    if not sender.request.is_eager:
        current_work.set(Work(f"task {sender.name}[{task_id}]"))


def end_task(sender: Any, **_: Any) -> None:
    """End the work of a task, after a success, an error, a retry or a time limit."""
    if not sender.request.is_eager:
        end()


def end_broken_task(request: dict[str, Any] | None = None, **_: Any) -> None:
    """End the work of a task whose time limit came when Celery was about to send ``task_postrun``."""
    if not (request and request.get("is_eager")):
        end()


def end() -> None:
    """End the current work and all leases of this thread, where no code runs any more that needs them."""
    if work := current_work.get():
        work.mark_ended()
    current_work.set(None)
    live.end_thread()


def close_pools_on_exit(**_: Any) -> None:
    """Close the pools of a child, which ends by ``os._exit()`` and so runs no exit handler."""
    registry.close("its Celery worker process ends")
