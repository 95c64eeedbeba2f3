"""Real workers, run and counted from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from celery import Celery

from servers import PrivateServer, Session
from tests.support import ROOT
from tests.support.celery_site import notes
from tests.support.processes import entry, start_program
from tests.support.redis_server import Redis
from tests.support.web_server import eventually

#: Seconds; only what hangs needs them.
PATIENCE = 60.0
#: The thread of the main process that keeps a session.
RESIDENTS = 1


class Worker:
    """``celery worker`` with this site, for a ``with`` block; its end is that of SIGTERM."""

    def __init__(
        self,
        folder: Path,
        redis: Redis,
        databases: dict[str, dict[str, Any]],
        *arguments: str,
        beside: Sequence[str] = ("poollife",),
        **conf: Any,
    ) -> None:
        """:param beside: what the site does beside the usual; see its ``app.py``."""
        self._notes, self._log = folder / "notes", folder / "log"
        self._notes.touch()
        self._environment = {
            **os.environ,
            "CELERY_SITE_CONF": json.dumps(
                {
                    "broker_url": redis.url,
                    "result_backend": redis.url,
                    "worker_hijack_root_logger": False,
                    **conf,
                }
            ),
            "CELERY_SITE_DATABASES": json.dumps(databases),
            "TASK_NOTES": str(self._notes),
            "CELERY_SITE_WITH": json.dumps(beside),
            "PYTHONPATH": str(ROOT),
        }
        self._command = [
            sys.executable,
            "-m",
            "celery",
            "--app",
            "tests.support.celery_site.app",
            "worker",
            *arguments,
        ]
        self._command += ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        self._client = Celery(broker=redis.url, backend=redis.url, set_as_current=False)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self._process = start_program(self._command, self._log, self._environment)
        try:
            eventually("the worker is ready", lambda: self._has_said(" ready."))
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._process
        try:
            self._process.terminate()
            self._wake()
            status = self._process.wait(PATIENCE)
        finally:
            self.kill()
            self._client.close()
        if kind is None:
            assert status in (0, -signal.SIGKILL), self.log

    @property
    def log(self) -> str:
        """What its processes have printed so far."""
        return self._log.read_text(errors="replace")

    def send(self, task: str, *arguments: Any, **options: Any) -> Any:
        """Have it do this, some time."""
        return self._client.send_task(f"tests.support.celery_site.tasks.{task}", arguments, **options)

    def answer(self, result: Any) -> Any:
        """What a task returned, or its error."""
        return result.get(timeout=PATIENCE, propagate=False)

    def do(self, task: str, *arguments: Any, **options: Any) -> Any:
        """Both."""
        return self.answer(self.send(task, *arguments, **options))

    def held(self) -> int:
        """How many tasks ended, or the main process did, with something still borrowed by their thread."""
        lines = self.noted("task over") + self.noted("main thread over")
        return sum(line["held"] > 0 for line in lines)

    def revoke(self, result: Any) -> None:
        """End a task that runs."""
        self._client.control.revoke(result.id, terminate=True)

    def noted(self, event: str) -> list[dict[str, Any]]:
        """What its processes have noted of this kind."""
        return [line for line in notes.read(self._notes) if line["event"] == event]

    def noticed(self, event: str) -> dict[str, Any]:
        """The first note of this kind, when it is there."""
        eventually(event, lambda: bool(self.noted(event)))
        return self.noted(event)[0]

    def _has_said(self, what: str) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log
        return what in self.log

    def _wake(self) -> None:
        """Without an event loop it waits for a message twice, for two seconds, before it ends."""
        for _ in range(3):
            # Too old to be done, by this worker or by the next one.
            self.send("late", expires=-1.0)
            time.sleep(0.1)

    def kill(self) -> None:
        """End it without any ado."""
        assert self._process
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Peak:
    """The most sessions that a database had at once, as far as one sees by looking all the time."""

    def __init__(self, server: PrivateServer, database: str) -> None:
        self.sessions = 0
        self._server, self._database = server, database
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.sessions = max(self.sessions, len(sessions(self._server, self._database)))


def sessions(server: PrivateServer, database: str) -> list[Session]:
    """Return the sessions of a database that no other test uses, whatever other tests have left open."""
    return [session for session in server.sessions() if session.db == database]


class Variant(NamedTuple):
    """A way to run a worker."""

    arguments: tuple[str, ...]
    #: That each process has a connection for.
    threads: int = 1
    processes: int = 1
    beside: tuple[str, ...] = ()
    conf: dict[str, Any] = {}

    @property
    def forks(self) -> bool:
        """Whether tasks are done in children."""
        return "prefork" in self.arguments


VARIANTS: dict[str, Variant] = {
    "prefork": Variant(("--pool", "prefork", "-c", "2", "--max-tasks-per-child", "15"), processes=2),
    # As with brokers that Celery has no event loop for: threads of the main process look after the children.
    "prefork, blocking": Variant(
        ("--pool", "prefork", "-c", "2", "--max-tasks-per-child", "15"),
        processes=2,
        beside=("blocking", "install"),
    ),
    "prefork, spawned": Variant(
        ("--pool", "prefork", "-c", "2"), processes=2, conf={"worker_pool_start_method": "spawn"}
    ),
    "threads": Variant(("--pool", "threads", "-c", "8"), threads=4),
    "gevent": Variant(("--pool", "gevent", "-c", "20"), threads=4),
    "solo": Variant(("--pool", "solo")),
}


class Counts(NamedTuple):
    """What became of a worker."""

    tasks: int
    #: That did tasks.
    processes: int
    #: Sessions that tasks were done in.
    sessions: int
    #: Tasks whose thread still had something after them; the main process's main thread counts, too.
    held: int
    #: Of the sessions that the main process had when it began to fork: those that it still had in the end.
    parents: tuple[int, int]
    inherited: int
    #: Answers; tasks that shared a session count as well.
    wrong: int
    #: Sessions.
    over_limit: int
    #: Sessions that ended without a quit packet.
    aborted: int


def measure(
    name: str,
    server: PrivateServer,
    database: str,
    redis: Redis,
    folder: Path,
    *,
    tasks: int = 80,
    beside: Sequence[str] = ("poollife",),
    **conf: Any,
) -> Counts:
    """Have a worker do this many tasks in one of ``VARIANTS``, and end it."""
    variant = VARIANTS[name]
    pool = {"pool_size": variant.threads + RESIDENTS, "max_overflow": 0, "timeout": PATIENCE}
    allowed = (variant.threads + RESIDENTS) * (variant.processes + variant.forks)
    aborted = server.aborted()
    worker = Worker(
        folder,
        redis,
        {"default": entry(server, database, POOL=pool)},
        *variant.arguments,
        beside=(*beside, *variant.beside),
        **variant.conf,
        **conf,
    )
    with Peak(server, database) as peak, worker:
        sent = [worker.send("echo", number, 0.005) for number in range(tasks)]
        answers = [worker.answer(result) for result in sent]
    eventually("the server has noticed", lambda: not sessions(server, database))
    assert len(worker.noted("task over")) == tasks, worker.log
    return Counts(
        tasks=len(answers),
        processes=len({answer["pid"] for answer in answers}),
        sessions=len({answer["session"] for answer in answers}),
        held=worker.held(),
        parents=parents(worker, variant),
        inherited=sum(len(answer["inherited"]) for answer in answers),
        wrong=sum(not answer["right"] for answer in answers) + shared(answers),
        over_limit=max(0, peak.sessions - allowed),
        aborted=server.aborted() - aborted,
    )


def parents(worker: Worker, variant: Variant) -> tuple[int, int]:
    """How many of the main process's sessions there were, and how many of them it had to its end."""
    starts = worker.noted("resident")[:1] + worker.noted("import")[: int(variant.forks)]
    ends = worker.noted("resident")[1:] + worker.noted("shutdown")
    before, after = ({line["session"] for line in lines} for lines in (starts, ends))
    return len(before), len(before & after)


def shared(answers: list[dict[str, Any]]) -> int:
    """How many tasks had a session that another one had at the same time."""
    busy_until: dict[int, float] = {}
    found = 0
    for answer in sorted(answers, key=lambda answer: float(answer["start"])):
        found += answer["start"] < busy_until.get(answer["session"], 0.0)
        busy_until[answer["session"]] = answer["end"]
    return found
