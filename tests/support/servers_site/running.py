"""Runs the site under one web server, and counts what became of sockets, sessions and answers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, Self

from servers import PrivateServer
from servers.ports import free_port
from tests.support import ROOT
from tests.support.processes import Counts, entry, is_right, make_table, start_program, tracebacks_in
from tests.support.web_server import PATIENCE, eventually, fetch

WORKERS = 2
#: At once.
CLIENTS = 4
#: Of each pool. A process that all clients ask has one wait.
LIMIT = 3
#: A worker that leaves by itself does so after this part of all requests.
SHARE = 4

#: What runserver says then.
STARTED = "Quit the server"

WSGI, ASGI = "tests.support.servers_site.wsgi:application", "tests.support.servers_site.asgi:application"
#: The second of each four requests, and the last one, fork a child.
KINDS = ("echo", "fork/process", "echo", "fork/fork")
ASYNC_KINDS = ("echo", "fork/process", "async", "fork/fork")
Answer = dict[str, Any]
#: The numbers of questions that are asked once more begin here.
REPEATED = 1_000_000


class Question(NamedTuple):
    """A request for one of the site's pages."""

    kind: str
    #: Asked about there; a fork inserts it as a row.
    number: int

    @property
    def path(self) -> str:
        return f"/{self.kind}/{self.number}/"

    @property
    def forks(self) -> bool:
        return self.kind.startswith("fork/")


ECHO = Question("echo", 0)


@dataclass(frozen=True)
class WebServer:
    """A web server, and a way of running it."""

    #: The module that ``python -m`` runs.
    program: str
    arguments: tuple[str, ...]
    #: Who queries before there are workers: gunicorn's master, which loads the application ("preload"), the
    #: process that runs the server ("launch"), or nobody.
    parent: str = "launch"
    #: Whether that process is gevent's already.
    gevent: bool = False
    #: How many processes serve.
    workers: int = WORKERS
    #: What has them replaced: "requests", after so many of them; "HUP"; a "change" of the code; or nothing.
    replaced_by: str = "requests"
    #: What is asked for, in turn.
    kinds: tuple[str, ...] = ASYNC_KINDS
    #: Whether its own end kills workers, whose sessions then end as everybody's would.
    kills: bool = False


def gunicorn(worker: str, *arguments: str, preload: bool) -> WebServer:
    """gunicorn with workers of this kind."""
    kinds = {"asgi": ASYNC_KINDS, "gevent": ("echo", "fork/greenlet")}
    return WebServer(
        "gunicorn",
        (
            *("--config", "python:tests.support.servers_site.gunicorn_conf", "--bind", "127.0.0.1:{port}"),
            *("--workers", "{workers}", "--max-requests", "{share}", "--worker-class", worker),
            *(*arguments, ASGI if worker == "asgi" else WSGI),
        ),
        parent="preload" if preload else "",
        gevent=worker == "gevent" and preload,
        kinds=kinds.get(worker, KINDS),
    )


GUNICORN = {
    "sync": ("sync",),
    "gthread": ("gthread", "--threads", str(CLIENTS)),
    "gevent": ("gevent",),
    "asgi": ("asgi",),
}
SERVERS = {
    **{
        f"gunicorn {name}{', preload' if preload else ''}": gunicorn(*arguments, preload=preload)
        for name, arguments in GUNICORN.items()
        for preload in (True, False)
    },
    "uvicorn": WebServer(
        "uvicorn",
        (
            *("--port", "{port}", "--workers", "{workers}", "--limit-max-requests", "{share}"),
            *("--log-level", "warning", "tests.support.servers_site.asgi:with_middleware"),
        ),
    ),
    "hypercorn": WebServer(
        "hypercorn",
        (
            *("--bind", "127.0.0.1:{port}", "--workers", "{workers}", "--max-requests", "{share}"),
            # It cancels what takes longer than this: 3 by itself.
            *("--graceful-timeout", "60", ASGI),
        ),
        # Its workers are daemons, in the words of multiprocessing, which forbids them to have children.
        kinds=("echo", "fork/leave", "async", "fork/fork"),
        # When the first of them has ended it sends the others SIGTERM, which they don't handle.
        kills=True,
    ),
    "daphne": WebServer("daphne", ("--port", "{port}", ASGI), workers=1, replaced_by=""),
    "granian": WebServer(
        "granian",
        (
            *("--port", "{port}", "--workers", "{workers}", "--respawn-interval", "0.1"),
            *("--interface", "asginl", ASGI),
        ),
        replaced_by="HUP",
    ),
    "runserver": WebServer(
        "django",
        ("runserver", "127.0.0.1:{port}"),
        workers=1,
        replaced_by="change",
        kinds=KINDS,
    ),
}


class Serving:
    """A web server that serves the site, for a ``with`` block."""

    def __init__(
        self, server: WebServer, folder: Path, database: dict[str, Any], share: int, without: str = ""
    ) -> None:
        """:param share: after how many requests a worker leaves, where it leaves by itself."""
        self._server = server
        self._folder = folder
        self._port = free_port()
        self._values = {"port": self._port, "workers": server.workers, "share": share}
        #: Questions that may have been carried out, though no answer came.
        self.unanswered: list[Question] = []
        self._numbers = itertools.count(REPEATED)
        (folder / "changing.py").touch()
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.servers_site.settings",
            "FORK_SITE_DATABASES": json.dumps({"default": database, "idle": database}),
            "FORK_SITE_FOLDER": str(folder),
            "FORK_SITE_WITHOUT": without,
            "SERVERS_SITE_PRELOAD": "yes" if server.parent == "preload" else "",
            "SERVERS_SITE_GEVENT": "yes" if server.gevent else "",
            "SERVERS_SITE_PROGRAM": server.program,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
        }

    def __enter__(self) -> Self:
        launch = "tests.support.servers_site.launch"
        module = launch if self._server.parent == "launch" else self._server.program
        arguments = [argument.format(**self._values) for argument in self._server.arguments]
        self._process = start_program(
            [sys.executable, "-m", module, *arguments], self._log, self._environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, question: Question) -> Answer:
        """Return what the site answers, as soon as it does.

        A worker that leaves hangs up on clients, and one that is killed may have carried out their requests.
        So what was sent is never sent again: the same is asked about another number.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._get(question)
            except ConnectionRefusedError as error:
                refusal: Exception = error
            except (ConnectionError, HTTPException) as error:
                refusal = error
                self.unanswered.append(question)
                question = question._replace(number=next(self._numbers))
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"no answer: {refusal!r}\n{self.log}")
            time.sleep(0.02)

    def _get(self, question: Question) -> Answer:
        status, body = fetch(self._port, question.path)
        if status != 200:
            return {"question": question, "status": status, "pid": None, "right": False}
        answer: Answer = json.loads(body)
        return {"question": question, **answer}

    def get_all(self, questions: Sequence[Question], meanwhile: Callable[[], object] = dict) -> list[Answer]:
        """Return what it answers to many; :param meanwhile: is done when half of them are through."""
        with ThreadPoolExecutor(CLIENTS) as crowd:
            answers = [crowd.submit(self.get, question) for question in questions]
            wait(answers[: len(answers) // 2])
            meanwhile()
            return [answer.result() for answer in answers]

    def replace_workers(self) -> None:
        """Have the server do this, if it needs to be told."""
        if self._server.replaced_by == "HUP":
            self._process.send_signal(signal.SIGHUP)
        elif self._server.replaced_by == "change":
            starts = self.log.count(STARTED)
            (self._folder / "changing.py").touch()
            eventually("it serves again", lambda: self.log.count(STARTED) > starts)

    def end(self, worker: int) -> None:
        """Have it end in good order; :param worker: is one that serves."""
        if self._server.program == "gunicorn":
            # They would miss the signal, and be killed half a minute later.
            eventually("no worker is in the making", self._workers_are_made)
        # The reloader's parent would kill its child.
        pid = worker if self._server.replaced_by == "change" else self._process.pid
        os.kill(pid, signal.SIGTERM)
        self._process.wait(2 * PATIENCE)

    def _workers_are_made(self) -> bool:
        marks = (self._folder / "workers").read_text()
        return marks.count("made") == marks.count("ready")

    def sessions(self, moment: str) -> dict[str, int | str]:
        """What the process that had queried before had at the "start", and at the "end"."""
        sessions: dict[str, int | str] = self._note(moment)["sessions"]
        return sessions

    def _note(self, name: str) -> dict[str, Any]:
        if not self._server.parent:
            return {"pid": None, "sessions": {}}
        note: dict[str, Any] = json.loads((self._folder / f"{name}.json").read_text())
        return note

    @property
    def parent(self) -> int | None:
        """That process."""
        pid: int | None = self._note("start")["pid"]
        return pid

    @property
    def _log(self) -> Path:
        return self._folder / "log"


def count(
    database: PrivateServer, name: str, folder: Path, server: WebServer, requests: int, without: str = ""
) -> Counts:
    """Run the site under this server and count.

    :param database: the database server, which has no other sessions.
    :param name: an empty database there.
    :param folder: an empty one.
    :param without: the part of the invariant's code that is taken out.
    """
    make_table(database, name)
    settings = entry(database, name, POOL={"pool_size": LIMIT, "max_overflow": 0, "timeout": PATIENCE})
    aborted = database.aborted()
    kinds = server.kinds
    questions = [Question(kinds[number % len(kinds)], number) for number in range(1, requests + 1)]
    with Serving(server, folder, settings, requests // SHARE, without) as serving:
        answers = serve(serving, server, questions)
        parents = serving.sessions("start")
        allowed = len(parents) + server.workers * LIMIT
        over_limit = left_over(database, allowed) + opened_over(answers)
        present = {session.id for session in database.sessions()}
        aborted_so_far = database.aborted()
        serving.end(answers[-1]["pid"])
        eventually("all sessions end", lambda: not database.sessions())
    in_the_end = serving.sessions("end")
    rows = {number for (number,) in database.execute("SELECT number FROM rows_", database=name)}
    answered = [answer["question"] for answer in answers]
    # From 3.13 on these children leave by os._exit(): see tests/support/programs/children.py.
    hasty = sum(each.kind == "fork/fork" for each in answered) if sys.version_info >= (3, 13) else 0
    return Counts(
        requests=len(answers),
        processes=len({answer["pid"] for answer in answers}),
        parent_sessions=len(parents),
        alive=sum(number in present and in_the_end[alias] == number for alias, number in parents.items()),
        inherited_sockets=sum(inherited(answer) for answer in answers),
        wrong_answers=sum(not is_right(answer) for answer in answers)
        + shared(answers, dict.fromkeys(parents.values(), serving.parent))
        + misplaced(rows, answered, serving.unanswered),
        over_limit=over_limit,
        aborted=(aborted_so_far if server.kills else database.aborted()) - aborted - hasty,
        tracebacks=tracebacks_in(serving.log),
        repeated=len(serving.unanswered),
    )


def misplaced(rows: set[int], answered: Sequence[Question], unanswered: Sequence[Question]) -> int:
    """Return how many rows are missing, or should not be there.

    :param unanswered: of these, either is right.
    """
    expected = {question.number for question in answered if question.forks}
    possible = expected | {question.number for question in unanswered if question.forks}
    return len(expected - rows) + len(rows - possible)


def serve(serving: Serving, server: WebServer, questions: list[Question]) -> list[Answer]:
    """Have it answer all of it, and go on until there are others who do."""
    answers = [serving.get(ECHO)]
    if server.replaced_by == "change":
        # It ends at once then, whatever it is doing.
        half = len(questions) // 2
        answers += serving.get_all(questions[:half])
        serving.replace_workers()
        answers += serving.get_all(questions[half:])
    else:
        answers += serving.get_all(questions, serving.replace_workers)
    eventually("others serve", partial(others_serve, serving, server, answers))
    return answers


def others_serve(serving: Serving, server: WebServer, answers: list[Answer]) -> bool:
    """Ask once more, and look who has answered so far."""
    answers.append(serving.get(ECHO))
    expected = server.workers + 1 if server.replaced_by else server.workers
    return len({answer["pid"] for answer in answers}) >= expected


def left_over(database: PrivateServer, allowed: int) -> int:
    """How many sessions too many there are, when those who leave have had their time."""
    deadline = time.monotonic() + PATIENCE
    while (found := len(database.sessions())) > allowed and time.monotonic() < deadline:
        time.sleep(0.05)
    return max(0, found - allowed)


def opened_over(answers: list[Answer]) -> int:
    """How many sessions too many the processes have had."""
    most: dict[int, int] = {}
    for answer in answers:
        most[answer["pid"]] = max(most.get(answer["pid"], 0), answer.get("sockets", 0))
    return sum(max(0, number - LIMIT) for number in most.values())


def inherited(answer: Answer) -> int:
    """How many of its parent's sockets a worker had, and the child that it forked."""
    return len(answer.get("inherited", ())) + len(answer.get("child", {}).get("inherited", ()))


def shared(answers: list[Answer], parents: dict[int | str, int | None]) -> int:
    """How many sessions had several processes use them."""
    users: dict[int | str, set[int | None]] = {session: {pid} for session, pid in parents.items()}
    for answer in answers:
        if "session" in answer:
            users.setdefault(answer["session"], set()).add(answer["pid"])
        if own := answer.get("child", {}).get("own"):
            users.setdefault(own, set()).add(-own)  # a child, whoever that was
    return sum(len(pids) > 1 for pids in users.values())
