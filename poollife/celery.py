"""Clocks 2 and 3 under Celery: a task ends, a worker's processes begin and end.

The app in ``INSTALLED_APPS`` calls ``install()``. Without it, in the site's ``celery.py``, at the end::

    import poollife.celery; poollife.celery.install()

Sessions are safe without it, across every fork, and Celery's own support of Django closes the connections of
a task's thread when the task is over. What that leaves open is closed here: see ``docs/tasks.md``.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from poollife.pools import live
from poollife.pools.registry import registry
from poollife.work import Work, current_work


def install() -> None:
    """Have poollife take part in the life of Celery's workers. Harmless if repeated, or outside of them."""
    signals.celeryd_init.connect(connect)
    # By then `celery worker` has done so. Workers that programs embed send this first, ...
    signals.worker_init.connect(connect)
    # ... and children that were spawned, which is what macOS does, nothing but this.
    signals.worker_process_init.connect(connect)


def connect(**_: Any) -> None:
    """A worker has imported what it needs, and so all receivers of the site's.

    Ours come behind those, to close what they open, and ahead of Celery's own support of Django.
    """
    signals.worker_process_init.connect(give_back)
    for signal in OUTSIDE_TASKS:
        signal.connect(give_back)
    signals.task_prerun.connect(begin_task)
    # Twice: should a time limit strike in the one, Celery goes on with the other.
    signals.task_postrun.connect(end_task)
    signals.task_postrun.connect(end_task, dispatch_uid="poollife, once more")
    signals.task_internal_error.connect(end_broken_task)
    signals.worker_process_shutdown.connect(say_goodbye)
    # A spawned child learns of this only now, when the site's receivers may have been called.
    give_back()


#: What a worker sends in the thread that receives tasks, and never from within one.
OUTSIDE_TASKS = (
    signals.worker_ready,
    signals.task_received,
    signals.task_revoked,
    signals.task_rejected,
    signals.task_unknown,
)


def give_back(**_: Any) -> None:
    """Give back what receivers, or the storing of a result, have borrowed in this thread.

    At the start of a process, where Celery itself would close the descriptor of a connection that it finds
    borrowed: the number is given to the next that opens something, and two would write into one socket.
    """
    live.release(None)


def begin_task(sender: Any, task_id: str, **_: Any) -> None:
    """Whatever this thread borrows from here on belongs to this task."""
    # An eager one runs within other work, a request's say, and ends with that.
    if not sender.request.is_eager:
        current_work.set(Work(lambda: f"task {sender.name}[{task_id}]"))


def end_task(sender: Any, **_: Any) -> None:
    """However it ended: on success, on error, for a retry, at a time limit."""
    if not sender.request.is_eager:
        end()


def end_broken_task(request: dict[str, Any] | None = None, **_: Any) -> None:
    """A time limit struck where Celery was about to call the receivers of ``task_postrun``."""
    if not (request and request.get("is_eager")):
        end()


def end() -> None:
    """Nothing goes on in this thread any more."""
    if work := current_work.get():
        work.mark_ended()
    current_work.set(None)
    live.end_thread()


def say_goodbye(**_: Any) -> None:
    """Close the pools of a child: it leaves by ``os._exit()``, which runs no exit handler."""
    registry.close("its Celery worker process ends")
