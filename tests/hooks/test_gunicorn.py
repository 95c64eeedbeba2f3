"""``poollife.gunicorn.install(globals())``: what a master keeps, how workers leave, and everybody's hooks."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

import poollife.gunicorn
from servers import MariaDB, PostgreSQL
from servers.ports import free_port
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.processes import start_program
from tests.support.programs.databases import session
from tests.support.web_server import PATIENCE, eventually, fetch

pytestmark = [pytest.mark.slow, pytest.mark.servers]

KINDS = ("sync", "gthread")

#: Hooks that leave a session in whatever process they run in, and others.
QUERYING = """
from tests.support.gunicorn_site.notes import note, resident, session

wsgi_app = "tests.support.gunicorn_site.wsgi"
preload_app = True
control_socket_disable = True


def when_ready(server):
    note("when_ready", session())
    resident.enter()


def pre_fork(server, worker):
    note("pre_fork", session())


def post_worker_init(worker):
    note("ready", session())


def worker_exit(server, worker):
    note("worker_exit", session())


def child_exit(server, worker):
    note("gone", worker.pid)


import poollife.gunicorn; poollife.gunicorn.install(globals())


def on_exit(server):
    resident.leave()
    note("on_exit", session())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """Nobody else's connections end on it."""
    with MariaDB() as server:
        server.create_database("site")
        yield server


class Note(NamedTuple):
    """What one process noted."""

    pid: int
    what: str
    session: int | None


class Gunicorn:
    """A gunicorn with a configuration file of its own, and what its processes noted."""

    def __init__(self, folder: Path, server: MariaDB, config: str, *arguments: str, **entry: Any) -> None:
        """:param entry: more for the entry of DATABASES."""
        self.port = free_port()
        self._server = server
        self._notes, self._log = folder / "notes", folder / "log"
        self.config = folder / "gunicorn.conf.py"
        self.config.write_text(config)
        database = {"ENGINE": "poollife.backends.mysql", **server.database("site"), **entry}
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.gunicorn_site.settings",
            "GUNICORN_SITE_DATABASES": json.dumps({"default": database}),
            "GUNICORN_SITE_NOTES": str(self._notes),
            "PYTHONPATH": str(ROOT),
        }
        # Not "python -m gunicorn": after USR2 the new master would find gunicorn's own http before Python's.
        program = Path(sys.executable).with_name("gunicorn")
        self._command = [sys.executable, str(program), "--config", str(self.config), *arguments]
        self._command += ["--bind", f"127.0.0.1:{self.port}"]
        self._aborted = server.status("Aborted_clients")

    def start(self) -> None:
        self.master = start_program(self._command, self._log, self._environment)
        eventually("it answers", self._answers)

    def _answers(self) -> bool:
        assert self.master.poll() is None, self.log
        with suppress(OSError):
            return self._ask("/alive") == b"yes"
        return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def aborted(self) -> int:
        """How many sessions ended without a quit packet since the start."""
        return self._server.status("Aborted_clients") - self._aborted

    def notes(self, what: str) -> list[Note]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        fields = (line.split() for line in lines)
        notes = [Note(int(pid), name, int(s) if s.isdigit() else None) for pid, name, s in fields]
        return [note for note in notes if note.what == what]

    @property
    def workers(self) -> set[int]:
        """Those that serve."""
        gone = {note.session for note in self.notes("gone")}
        return {note.pid for note in self.notes("ready")} - gone

    def wait_for_workers(self, number: int) -> None:
        eventually(f"{number} workers", lambda: len(self.workers) == number)

    def wait_for_end(self, pid: int) -> None:
        eventually(f"worker {pid} ends", lambda: pid not in self.workers)

    def get(self, path: str) -> tuple[int, int]:
        """The process and the session that answered."""
        pid, number = map(int, self._ask(path).split())
        return pid, number

    def _ask(self, path: str) -> bytes:
        answer = fetch(self.port, path)
        assert answer.status == 200, self.log
        return answer.body

    def get_from_all(self) -> dict[int, int]:
        """Ask until every worker has answered: worker -> its session."""
        answers: dict[int, int] = {}

        def ask() -> bool:
            answers.update([self.get("/one")])
            return answers.keys() >= self.workers

        eventually("every worker has answered", ask)
        return {pid: answers[pid] for pid in self.workers}

    def sessions(self) -> set[int]:
        return {session.id for session in self._server.sessions()}

    def end(self) -> None:
        self.master.terminate()
        self.master.wait(PATIENCE)
        eventually("all sessions end", lambda: not self.sessions())

    def kill(self) -> None:
        """Whatever is left of it, at the end of a test."""
        with suppress(ProcessLookupError):
            os.killpg(self.master.pid, signal.SIGKILL)
        self.master.wait()
        eventually("all sessions end", lambda: not self.sessions())


@pytest.fixture
def run(tmp_path: Path, server: MariaDB) -> Iterator[Callable[..., Gunicorn]]:
    """A function that starts a gunicorn; the test's end kills what is left of it."""
    running: list[Gunicorn] = []

    def start(config: str, *arguments: str, **entry: Any) -> Gunicorn:
        gunicorn = Gunicorn(tmp_path, server, config, *arguments, **entry)
        running.append(gunicorn)
        gunicorn.start()
        return gunicorn

    yield start
    for gunicorn in running:
        gunicorn.kill()


def of_kind(kind: str) -> tuple[str, ...]:
    threads = ("--threads", "4") if kind == "gthread" else ()
    return ("--worker-class", kind, *threads)


# --- the master ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_master_keeps_no_session(run: Callable[..., Gunicorn], kind: str) -> None:
    """Neither what the application opened when it was imported, nor what the hooks did."""
    gunicorn = run(QUERYING, "--workers", "2", *of_kind(kind))
    gunicorn.wait_for_workers(2)
    workers = set(gunicorn.get_from_all().values())
    resident = {note.session for note in gunicorn.notes("resident")}
    masters = {note.session for name in ("import", "when_ready", "pre_fork") for note in gunicorn.notes(name)}
    assert len(masters) == 2  # the second fork had the hook open another
    assert gunicorn.sessions() == workers | resident
    assert not gunicorn.sessions() & masters
    gunicorn.end()
    assert gunicorn.aborted == 0


def test_without_preload_the_master_loads_nothing(run: Callable[..., Gunicorn]) -> None:
    config = """
import sys
from tests.support.gunicorn_site.notes import note

wsgi_app = "tests.support.gunicorn_site.wsgi"
control_socket_disable = True


def post_worker_init(worker):
    note("ready")


def child_exit(server, worker):
    note("loaded", sum(name.startswith(("django.", "sqlalchemy.", "MySQLdb.")) for name in sys.modules))


import poollife.gunicorn; poollife.gunicorn.install(globals())
"""
    gunicorn = run(config, "--workers", "2")
    eventually("both workers", lambda: len(gunicorn.notes("ready")) == 2)
    gunicorn.end()
    assert [note.session for note in gunicorn.notes("loaded")] == [0, 0]
    assert gunicorn.aborted == 0


# --- the workers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_gentle_end(run: Callable[..., Gunicorn], kind: str) -> None:
    """More workers and fewer, a reload, a worker told to quit, a new program, the end: no session is cut off.

    And a session that a thread of the master has through all of it is never lost.
    """
    gunicorn = run(QUERYING, "--workers", "2", *of_kind(kind))
    gunicorn.wait_for_workers(2)

    gunicorn.master.send_signal(signal.SIGTTIN)
    gunicorn.wait_for_workers(3)
    gunicorn.get_from_all()
    gunicorn.master.send_signal(signal.SIGTTOU)
    gunicorn.wait_for_workers(2)
    assert gunicorn.aborted == 0

    before = set(gunicorn.get_from_all())
    gunicorn.master.send_signal(signal.SIGHUP)
    eventually("others serve", lambda: not before & gunicorn.workers and len(gunicorn.workers) == 2)
    assert gunicorn.aborted == 0

    quitter = next(iter(gunicorn.get_from_all()))
    os.kill(quitter, signal.SIGQUIT)
    gunicorn.wait_for_end(quitter)
    gunicorn.wait_for_workers(2)
    assert gunicorn.aborted == 0

    before = set(gunicorn.get_from_all())
    gunicorn.master.send_signal(signal.SIGUSR2)
    gunicorn.wait_for_workers(4)
    gunicorn.get_from_all()
    gunicorn.master.terminate()
    gunicorn.master.wait(PATIENCE)
    assert not before & gunicorn.workers
    assert len(gunicorn.workers) == 2
    assert gunicorn.aborted == 0

    # The new master is nobody's child here.
    (new_master,) = {note.pid for note in gunicorn.notes("resident")} - {gunicorn.master.pid}
    gunicorn.get_from_all()
    os.kill(new_master, signal.SIGTERM)
    eventually("all sessions end", lambda: not gunicorn.sessions())
    eventually("it is at its end", lambda: len(gunicorn.notes("on_exit")) == 2)
    assert gunicorn.aborted == 0

    for master in (gunicorn.master.pid, new_master):
        first, last = (note.session for note in gunicorn.notes("resident") if note.pid == master)
        assert first == last
    # Of each worker there is a session that its own hook opened at the very end.
    exits = {note.pid: note.session for note in gunicorn.notes("worker_exit")}
    assert exits.keys() == {note.pid for note in gunicorn.notes("ready")}
    assert None not in exits.values()


@pytest.mark.parametrize("kind", KINDS)
def test_max_requests(run: Callable[..., Gunicorn], kind: str) -> None:
    gunicorn = run(QUERYING, "--workers", "2", "--max-requests", "5", *of_kind(kind))
    gunicorn.wait_for_workers(2)
    served: Counter[int] = Counter()
    while sum(number >= 5 for number in served.values()) < 6:
        served[gunicorn.get("/one")[0]] += 1
    leaving = {pid for pid, number in served.items() if number >= 5}
    eventually("they have left", lambda: leaving <= {note.session for note in gunicorn.notes("gone")})
    # A worker that is being started loses its master's SIGTERM: gunicorn's own handler is not in place yet.
    gunicorn.wait_for_workers(2)
    gunicorn.end()
    assert gunicorn.aborted == 0


def test_a_worker_that_reacts_to_its_timeout(run: Callable[..., Gunicorn]) -> None:
    gunicorn = run(QUERYING, "--workers", "2", "--timeout", "3")
    gunicorn.wait_for_workers(2)
    with background(lambda: gunicorn.get("/hang")):
        eventually("a request hangs", lambda: bool(gunicorn.notes("hangs")))
        (hanging,) = gunicorn.notes("hangs")
        gunicorn.wait_for_end(hanging.pid)
    assert f"WORKER TIMEOUT (pid:{hanging.pid})" in gunicorn.log
    eventually("its sessions end", lambda: hanging.session not in gunicorn.sessions())
    assert gunicorn.aborted == 0
    gunicorn.wait_for_workers(2)
    gunicorn.end()
    assert gunicorn.aborted == 0


@pytest.mark.parametrize("kind", KINDS)
def test_kills(run: Callable[..., Gunicorn], kind: str) -> None:
    """They can't end their sessions: one session each is cut off, and no other."""
    gunicorn = run(QUERYING, "--workers", "3", "--timeout", "3", *of_kind(kind))
    gunicorn.wait_for_workers(3)
    answers = gunicorn.get_from_all()
    killed, stopped, spared = answers
    os.kill(killed, signal.SIGKILL)
    gunicorn.wait_for_end(killed)
    os.kill(stopped, signal.SIGSTOP)  # so that it can't even react to its timeout
    gunicorn.wait_for_end(stopped)
    assert f"WORKER TIMEOUT (pid:{stopped})" in gunicorn.log
    eventually("two sessions end", lambda: not gunicorn.sessions() & {answers[killed], answers[stopped]})
    assert gunicorn.aborted == 2
    assert answers[spared] in gunicorn.sessions()
    gunicorn.wait_for_workers(3)
    gunicorn.end()
    assert gunicorn.aborted == 2


def test_a_thread_that_hangs_takes_only_its_own_session_along(run: Callable[..., Gunicorn]) -> None:
    """Python waits for that thread before it runs exit handlers, and gunicorn does not wait for Python."""
    gunicorn = run(QUERYING, "--graceful-timeout", "2", *of_kind("gthread"))
    with background(lambda: gunicorn.get("/hang")):
        eventually("a request hangs", lambda: bool(gunicorn.notes("hangs")))
        (hanging,) = gunicorn.notes("hangs")
        pid, other = gunicorn.get("/one")
        assert pid == hanging.pid
        assert other != hanging.session
        gunicorn.master.send_signal(signal.SIGQUIT)
        gunicorn.master.wait(PATIENCE)
        eventually("all sessions end", lambda: not gunicorn.sessions())
    assert f"Worker (pid:{hanging.pid}) was sent SIGKILL!" in gunicorn.log
    assert gunicorn.aborted == 1


@contextmanager
def background(request: Callable[[], object]) -> Iterator[None]:
    """While a request that will not be answered waits."""

    def ask() -> None:
        with suppress(OSError, AssertionError, ValueError):
            request()

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    thread.join()


# --- the line in the log ---------------------------------------------------------------------------------

PLAIN = """
from tests.support.gunicorn_site.notes import note

wsgi_app = "tests.support.gunicorn_site.wsgi"
control_socket_disable = True


def post_worker_init(worker):
    note("ready")


def child_exit(server, worker):
    note("gone", worker.pid)


import poollife.gunicorn; poollife.gunicorn.install(globals())
"""


def lines(gunicorn: Gunicorn) -> list[str]:
    """What poollife wrote: its level and its text."""
    found = re.findall(r"^\[.*?\] \[\d+\] \[(\w+)\] poollife: (.*)$", gunicorn.log, re.MULTILINE)
    return [f"{level} {text}" for level, text in found]


@pytest.mark.parametrize("preload", [True, False])
def test_the_line(run: Callable[..., Gunicorn], preload: bool) -> None:
    """Once at the start and once after each reload; not from every worker."""
    line = "INFO 2 workers x 15 (default) connections = 30; max_connections of the server is 600"
    gunicorn = run(PLAIN, "--workers", "2", *(["--preload"] if preload else []))
    gunicorn.wait_for_workers(2)
    eventually("a line", lambda: lines(gunicorn) == [line])
    first = next(iter(gunicorn.workers))
    os.kill(first, signal.SIGTERM)
    gunicorn.wait_for_end(first)
    gunicorn.wait_for_workers(2)
    gunicorn.get_from_all()
    assert lines(gunicorn) == [line]
    before = gunicorn.workers
    gunicorn.config.write_text(gunicorn.config.read_text() + "\nworkers = 3\n")
    gunicorn.master.send_signal(signal.SIGHUP)
    eventually("others serve", lambda: not before & gunicorn.workers and len(gunicorn.workers) == 2)
    gunicorn.get_from_all()
    gunicorn.end()
    assert lines(gunicorn) == [line, line]  # the number on the command line counts
    assert gunicorn.aborted == 0


@pytest.mark.parametrize(
    ("pool", "arguments", "expected"),
    [
        (
            {"pool_size": 300, "max_overflow": 1},
            ("--workers", "2"),
            ["WARNING 2 workers x 301 (default) connections = 602; max_connections of the server is 600"],
        ),
        (
            {"pool_size": 299, "max_overflow": 1},
            ("--workers", "2"),
            ["INFO 2 workers x 300 (default) connections = 600; max_connections of the server is 600"],
        ),
        (
            {"pool_size": 2, "max_overflow": 1},
            of_kind("gthread"),
            [
                "WARNING 4 threads share the 3 connections of 'default': raise pool_size, or "
                "requests will wait",
                "INFO 1 workers x 3 (default) connections = 3; max_connections of the server is 600",
            ],
        ),
        (
            {"timeout": 20},
            ("--timeout", "20"),
            [
                "WARNING POOL['timeout'] of 'default' is 20: gunicorn kills the worker after 20 s, before "
                "the pool can say why it waits",
                "INFO 1 workers x 15 (default) connections = 15; max_connections of the server is 600",
            ],
        ),
        (
            {"timeout": 20},
            ("--timeout", "20", *of_kind("gthread")),
            ["INFO 1 workers x 15 (default) connections = 15; max_connections of the server is 600"],
        ),
        (
            False,
            of_kind("gthread"),
            ["INFO 1 workers x 4 (default) connections = 4; max_connections of the server is 600"],
        ),
    ],
)
def test_other_lines(
    run: Callable[..., Gunicorn], pool: Any, arguments: tuple[str, ...], expected: list[str]
) -> None:
    gunicorn = run(PLAIN, *arguments, POOL=pool)
    gunicorn.wait_for_workers(2 if "2" in arguments else 1)
    gunicorn.get_from_all()
    gunicorn.end()
    assert lines(gunicorn) == expected


def test_the_line_on_postgresql(make_alias: MakeAlias, postgresql: PostgreSQL) -> None:
    alias = make_alias(
        "poollife.backends.postgresql", server=postgresql, POOL={"pool_size": 5, "max_overflow": 96}
    )
    told: list[str] = []

    def note(text: str, *values: object) -> None:
        told.append(text % values)

    worker: Any = SimpleNamespace(
        cfg=SimpleNamespace(workers=3, threads=1, worker_class_str="gthread", timeout=30),
        log=SimpleNamespace(info=None, warning=note),
    )
    poollife.gunicorn.announce(worker)
    line = "poollife: 3 workers x 101 ({}) connections = 303; max_connections of the server is 300"
    assert told == [line.format(alias)]


def test_a_database_that_is_down_keeps_no_site_from_starting(run: Callable[..., Gunicorn]) -> None:
    config = PLAIN.replace("tests.support.gunicorn_site.wsgi", "django.core.wsgi:get_wsgi_application()")
    gunicorn = run(config, PORT=str(free_port()), POOL={"outage_wait": 0})
    (line,) = lines(gunicorn)  # it answers, so it has been written
    assert line.startswith("WARNING could not compare the workers with the database server: (2002, ")


# --- everybody's hooks -----------------------------------------------------------------------------------

#: Every hook of gunicorn's with the number of its arguments.
HOOKS = {
    "on_starting": 1,
    "on_reload": 1,
    "when_ready": 1,
    "pre_fork": 2,
    "post_fork": 2,
    "post_worker_init": 1,
    "worker_int": 1,
    "worker_abort": 1,
    "pre_exec": 1,
    "pre_request": 2,
    "post_request": 4,
    "child_exit": 2,
    "worker_exit": 2,
    "nworkers_changed": 3,
    "on_exit": 1,
}
HEAD = """
from functools import wraps
from tests.support.gunicorn_site.notes import note
import poollife.gunicorn

wsgi_app = "tests.support.gunicorn_site.wsgi"
control_socket_disable = True


def noting(hook):
    @wraps(hook)
    def noted(*arguments):
        note("poollife." + hook.__name__)
        return hook(*arguments)
    return noted


for name, hook in poollife.gunicorn.HOOKS.items():
    poollife.gunicorn.HOOKS[name] = noting(hook)
"""
INSTALL = "poollife.gunicorn.install(globals())\n"


def define(names: list[str], label: str = "user") -> str:
    parameters = ("a", "b", "c", "d")
    return "".join(
        f"def {name}({', '.join(parameters[: HOOKS[name]])}): note('{label}.{name}')\n" for name in names
    )


ALL = list(HOOKS)
OURS = list(poollife.gunicorn.HOOKS)
IMPORT = "from tests.support.gunicorn_site.hooks import *\n"
PATH = "nworkers_changed = 'tests.support.gunicorn_site.hooks.nworkers_changed'\n"
BUT_ONE = [name for name in ALL if name != "nworkers_changed"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(define(ALL) + INSTALL, id="above"),
        pytest.param(define(ALL) + INSTALL + INSTALL, id="installed twice"),
        pytest.param(define(["nworkers_changed"]) + INSTALL + define(BUT_ONE), id="below"),
        pytest.param(define(ALL, "replaced") + INSTALL + define(ALL) + INSTALL, id="above and below"),
        pytest.param(INSTALL + define(BUT_ONE) + IMPORT + INSTALL, id="imported"),
        pytest.param(PATH + define(BUT_ONE) + INSTALL, id="a dotted path"),
    ],
)
def test_everybodys_hooks_run_in_order(run: Callable[..., Gunicorn], config: str) -> None:
    """The user's each time, and poollife's behind them, once."""
    gunicorn = run(HEAD + config)
    eventually("the worker is there", lambda: bool(gunicorn.notes("poollife.post_worker_init")))
    eventually("a request is done", lambda: bool(gunicorn.notes("user.post_request")))
    gunicorn.master.send_signal(signal.SIGINT)
    gunicorn.master.wait(PATIENCE)
    noted = (gunicorn.config.parent / "notes").read_text().splitlines()
    names = [line.split()[1] for line in noted]
    requests = names.count("user.pre_request")
    names = [name for name in names if name != "import" and "request" not in name]
    assert requests >= 1
    assert names == [
        *("user.nworkers_changed", "poollife.nworkers_changed"),
        *("user.on_starting", "user.when_ready"),
        *("user.pre_fork", "poollife.pre_fork"),
        "user.post_fork",
        *("user.post_worker_init", "poollife.post_worker_init"),
        "user.worker_int",
        *("user.worker_exit", "poollife.worker_exit"),
        *("user.child_exit", "user.on_exit"),
    ]


# --- without gunicorn ------------------------------------------------------------------------------------


def test_import_needs_nothing() -> None:
    """Neither gunicorn nor Django's settings; nor does it load Django."""
    program = """
import sys
sys.modules["gunicorn"] = None
import poollife.gunicorn
poollife.gunicorn.install(globals())
assert "django" not in sys.modules and "sqlalchemy" not in sys.modules

class Worker:
    cfg, pid = None, 0
pre_fork(Worker, Worker), worker_exit(Worker, Worker), post_worker_init(Worker)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_installed_twice() -> None:
    config: dict[str, Any] = {"workers": 2, "pre_fork": lambda server, worker: None}
    poollife.gunicorn.install(config)
    once = dict(config)
    poollife.gunicorn.install(config)
    assert config == once
    assert config.keys() == {"workers", *OURS}


def test_a_hook_that_fails_does_not_stop_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setitem(poollife.gunicorn.HOOKS, "worker_exit", lambda server, worker: ran.append("ours"))

    def worker_exit(server: object, worker: object) -> None:
        raise RuntimeError("on purpose")

    config: dict[str, Any] = {"worker_exit": worker_exit}
    poollife.gunicorn.install(config)
    with pytest.raises(RuntimeError, match="on purpose"):
        config["worker_exit"](None, None)
    assert ran == ["ours"]


def arity(hook: Callable[..., object]) -> int:
    """As gunicorn counts."""
    from gunicorn.util import get_arity

    number: int = get_arity(hook)
    return number


class Hooks:
    """Those of somebody who writes classes."""

    def pre_fork(self, server: object, worker: object) -> None:
        """A method."""

    def __call__(self, server: object, worker: object) -> None:
        """An instance."""


@pytest.mark.parametrize(
    "hook",
    [
        lambda server, worker: None,
        partial(lambda me, server, worker: None, 1),
        Hooks().pre_fork,
        Hooks(),
    ],
    ids=["a lambda", "a partial", "a method", "an object"],
)
def test_gunicorn_takes_every_kind_of_hook(hook: Callable[..., object]) -> None:
    config: dict[str, Any] = {"pre_fork": hook}
    poollife.gunicorn.install(config)
    assert config["pre_fork"] is not hook
    assert arity(config["pre_fork"]) == 2


def test_ours_have_the_arguments_that_gunicorn_wants() -> None:
    assert {name: arity(hook) for name, hook in poollife.gunicorn.HOOKS.items()} == {
        name: HOOKS[name] for name in OURS
    }


def test_a_worker_that_vanished_does_not_cost_the_master_its_sessions(
    server: MariaDB, make_alias: MakeAlias
) -> None:
    """gunicorn calls ``worker_exit`` for it in the master."""
    alias = make_alias(server=server, NAME="site")
    number = session(alias)
    poollife.gunicorn.worker_exit(None, SimpleNamespace(pid=os.getpid() + 1))
    assert session(alias) == number
    poollife.gunicorn.worker_exit(None, SimpleNamespace(pid=os.getpid()))
    assert session(alias) != number


def test_the_file_to_copy() -> None:
    """gunicorn takes all that is in it."""
    from gunicorn.config import Config

    config = Config()
    for name, value in runpy.run_path(str(ROOT / "deploy/gunicorn.conf.py")).items():
        if name in config.settings:
            config.set(name, value)
    assert config.preload_app
    assert {name: getattr(config, name) for name in OURS} == poollife.gunicorn.HOOKS
