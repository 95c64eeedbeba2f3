"""Runs the site in one variant of uWSGI, and counts what became of sockets, sessions and answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from servers import PrivateServer
from servers.ports import free_port
from tests.support import ROOT
from tests.support.processes import Counts, entry, is_right, make_table, start_program, tracebacks_in
from tests.support.web_server import PATIENCE, eventually, fetch

WORKERS = 2
#: Each with so many requests, after which all workers are replaced.
ROUNDS, REQUESTS = 3, 24
#: Of a worker, and so the size of each pool: a connection more is one too many.
THREADS = 4

#: As in deploy/uwsgi.ini. The master looks back before it leaves.
CLOSE_POOLS = (
    "call:PyRun_SimpleString import sys, poollife.uwsgi; "
    "site = sys.modules.get('tests.support.uwsgi_site.wsgi'); "
    "site and site.at_exit(); poollife.uwsgi.close_pools_on_exit()"
)
MASTER = (
    *("--master", "--min-worker-lifetime", "0", "--forkbomb-delay", "0"),
    *("--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
    *("--hook-as-user-atexit", "call:PyGILState_Ensure", "--hook-as-user-atexit", CLOSE_POOLS),
)


@dataclass(frozen=True)
class Build:
    """A uWSGI that somebody has built."""

    #: What is run, ahead of its options.
    command: tuple[str, ...]
    #: Options that it needs in any case.
    arguments: tuple[str, ...] = ()
    #: Why it can't be run here, if so.
    unfit: str = ""


def wheel() -> Build:
    """Return the one in the wheel pyuwsgi, which puts a program beside Python and is a module of that."""
    program = Path(sys.executable).with_name("uwsgi")
    return Build(
        (sys.executable, str(program)),
        # A reload would lose the virtual environment.
        ("--binary-path", sys.executable),
        unfit="" if program.exists() else "not installed: pyuwsgi",
    )


def classic() -> Build:
    """Return Debian's: a program of its own, with the system's Python in a plugin.

    It can't be told to use a virtual environment that another build of that Python made: with ``virtualenv``
    it takes the other one's standard library, too. Packages are found by their path.
    """
    program, plugin = shutil.which("uwsgi-core"), "python{}{}".format(*sys.version_info)
    unfit = ""
    if not program:
        unfit = "not installed: Debian's uwsgi-core"
    elif not Path(PLUGINS, f"{plugin}_plugin.so").exists():
        found = ", ".join(sorted(path.stem for path in Path(PLUGINS).glob("python3?*_plugin.so"))) or "none"
        unfit = f"its plugin is not for this Python ({found})"
    paths = sysconfig.get_paths()
    packages = [f"--pythonpath={path}" for path in {paths["purelib"], paths["platlib"]}]
    return Build((program or "uwsgi-core",), (f"--plugin={plugin}", *packages), unfit)


#: Where Debian has uWSGI's plugins.
PLUGINS = "/usr/lib/uwsgi/plugins"
WHEEL, CLASSIC = wheel(), classic()
#: By what rows of ``make processes`` are called.
BUILDS = {"uwsgi": WHEEL, "uwsgi of Debian": CLASSIC}


@dataclass(frozen=True)
class Variant:
    """A way of running it."""

    arguments: tuple[str, ...] = ()
    master: bool = True
    #: Whether each worker loads the application by itself.
    lazy: bool = False
    workers: int = WORKERS
    #: Mules and spoolers.
    helpers: int = 0
    #: What is asked for, in turn.
    kinds: tuple[str, ...] = ("echo", "fork/process", "echo", "fork/fork")
    build: Build = field(default=WHEEL)


VARIANTS = {
    "default": Variant(),
    # No children of multiprocessing: at the end of one Python 3.11 fails where its parent was a thread that
    # Python did not start, such as uWSGI's.
    "threads": Variant(("--enable-threads", "--threads", str(THREADS)), kinds=("echo", "fork/fork")),
    "osafterfork": Variant(("--enable-threads", "--py-call-osafterfork")),
    "fork-hooks": Variant(("--enable-threads", "--py-call-uwsgi-fork-hooks")),
    "mule + spooler": Variant(
        ("--mule", "--spooler", "{folder}/spool", "--spooler-frequency", "1"),
        helpers=2,
        kinds=("echo", "fork/process", "send", "send"),
    ),
    "no master": Variant(master=False),
    "lazy-apps": Variant(("--lazy-apps",), lazy=True),
}
if sys.version_info >= (3, 13):
    del VARIANTS["osafterfork"]  # every worker crashes, whatever it runs


class Uwsgi:
    """A uWSGI that serves the site."""

    def __init__(
        self, folder: Path, database: dict[str, Any], variant: Variant, *arguments: str, without: str = ""
    ) -> None:
        """:param without: the part of the invariant's code that is taken out."""
        self.port, self._stats_port = free_port(), free_port()
        self.folder = folder
        self._variant = variant
        (folder / "spool").mkdir()
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.uwsgi_site.settings",
            "FORK_SITE_DATABASES": json.dumps({"default": database, "idle": database}),
            "FORK_SITE_FOLDER": str(folder),
            "FORK_SITE_WITHOUT": without,
            "PYTHONPATH": str(ROOT),
        }
        self._arguments = arguments

    def command(self) -> list[str]:
        """What is run."""
        variant = self._variant
        return [
            *(*variant.build.command, *variant.build.arguments),
            *("--module", "tests.support.uwsgi_site.wsgi", "--need-app"),
            *("--http-socket", f"127.0.0.1:{self.port}", "--processes", str(variant.workers)),
            *self.signs,
            *(MASTER if variant.master else ()),
            *(argument.format(folder=self.folder) for argument in variant.arguments),
            *self._arguments,
        ]

    @property
    def signs(self) -> tuple[str, ...]:
        """The options that make each worker tell that it accepts, and the master what its workers are at."""
        accepting = ("--hook-accepting", f"appendn:{self.folder}/accepting yes")
        # With this option there is a master, whatever the others say.
        stats = ("--stats", f"127.0.0.1:{self._stats_port}") if self._variant.master else ()
        return *accepting, *stats

    def __enter__(self) -> Self:
        self.process = start_program(self.command(), self._log, self._environment)
        try:
            eventually("all workers are ready", lambda: self.accepting == self._variant.workers)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str) -> dict[str, Any]:
        """What the site answers."""
        status, body = fetch(self.port, path)
        assert status == 200, f"{path}: {status}\n{self.log}"
        answer: dict[str, Any] = json.loads(body)
        return answer

    def get_all(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(THREADS) as crowd:
            return list(crowd.map(self.get, paths))

    def replace_workers(self) -> None:
        """Have each end in good order, and the master make another."""
        self.wait_until_idle()
        ready = self.accepting
        for worker in self._stats():
            os.kill(worker["pid"], signal.SIGHUP)
        eventually("others are ready", lambda: self.accepting == ready + self._variant.workers)

    def wait_until_idle(self) -> None:
        """Wait until each thread of each worker waits for a request: no signal before that.

        uWSGI runs no exit handler in a worker that is not done with a request. That may be a moment after the
        client has all of its answer. And a worker accepts before its threads are there: uWSGI 2.0.21 then
        cancels the threads of the worker before it, and crashes (``wait_for_threads()`` in its core/uwsgi.c).
        """
        eventually("all threads wait for requests", lambda: all(map(is_idle, self._stats())))

    def _stats(self) -> list[dict[str, Any]]:
        """Return what the master says of each worker."""
        with socket.create_connection(("127.0.0.1", self._stats_port), PATIENCE) as connection:
            text = b"".join(iter(partial(connection.recv, 1 << 16), b""))
        workers: list[dict[str, Any]] = json.loads(text)["workers"]
        return workers

    def wait_for_jobs(self, number: int) -> None:
        """Until mules and spoolers have done so many."""
        eventually(f"{number} jobs are done", lambda: len(self.jobs) == number)

    def end(self) -> None:
        """Have all of it end in good order."""
        if self._variant.master:
            self.wait_until_idle()
            self.process.terminate()
        else:  # nobody would tell the others
            os.killpg(self.process.pid, signal.SIGHUP)
        self.process.wait(PATIENCE)

    @property
    def accepting(self) -> int:
        """How many workers have been ready so far."""
        assert self.process.poll() is None, self.log
        file = self.folder / "accepting"
        return file.read_text().count("yes") if file.exists() else 0

    def notes(self, *names: str) -> list[dict[str, Any]]:
        """What its processes noted under these names."""
        file = self.folder / "notes"
        notes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [note for note in notes if note["what"] in names]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What mules and spoolers have answered."""
        return self.notes("mule", "spooler")

    def sessions(self, moment: str) -> dict[str, int | str]:
        """What the process that loaded the application had at the "start", and at the "end"."""
        sessions: dict[str, int | str] = json.loads((self.folder / f"{moment}.json").read_text())["sessions"]
        return sessions

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.folder / "log"


def is_idle(worker: dict[str, Any]) -> bool:
    """Return whether each thread of this worker waits for a request."""
    cores = worker["cores"]
    # A thread makes its event queue last.
    return not any(core["in_request"] for core in cores) and queues(worker["pid"]) >= len(cores)


def queues(pid: int) -> int:
    """Return how many event queues a process has: one for each thread that waits for requests."""
    links = []
    # A worker that has just ended has number 0, or no folder.
    with suppress(OSError):
        links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.name == "anon_inode:[eventpoll]" for link in links)


def count(server: PrivateServer, name: str, folder: Path, variant: Variant, without: str = "") -> Counts:
    """Run the site in this variant and count.

    :param name: an empty database on that server, which has no other sessions.
    :param folder: an empty one.
    :param without: the part of the invariant's code that is taken out.
    """
    make_table(server, name)
    database = entry(server, name, POOL={"pool_size": THREADS, "max_overflow": 0})
    aborted = server.aborted()
    asked: list[str] = []
    answers: list[dict[str, Any]] = []
    with Uwsgi(folder, database, variant, without=without) as uwsgi:
        for paths in rounds(variant):
            jobs = len(uwsgi.jobs) + variant.helpers * sum(path.startswith("/send/") for path in paths)
            asked += paths
            answers += uwsgi.get_all(paths)
            uwsgi.wait_for_jobs(jobs)
            if variant.master:
                uwsgi.replace_workers()
        present = {session.id for session in server.sessions()}
        uwsgi.end()
        eventually("all sessions end", lambda: not server.sessions())
    # With lazy-apps there is no parent: each worker has sessions of its own.
    parents = {} if variant.lazy else uwsgi.sessions("start")
    in_the_end = {} if variant.lazy else uwsgi.sessions("end")
    answers += uwsgi.jobs
    # From 3.13 on these children leave by os._exit(): see tests/support/programs/children.py.
    forks = sum(path.startswith("/fork/fork/") for path in asked)
    hasty = forks if sys.version_info >= (3, 13) else 0
    return Counts(
        requests=len(asked),
        processes=len({answer["pid"] for answer in answers}),
        parent_sessions=len(parents),
        alive=sum(number in present and in_the_end[alias] == number for alias, number in parents.items()),
        inherited_sockets=sum(len(note["sockets"]) for note in uwsgi.notes("child")),
        wrong_answers=sum(not is_right(answer) for answer in answers),
        over_limit=max(0, len(present) - len(parents) - (variant.workers + variant.helpers) * THREADS),
        aborted=server.aborted() - aborted - hasty,
        # Other children than those of multiprocessing tell of that failure, and end well.
        tracebacks=tracebacks_in(uwsgi.log, "assert tlock is not None"),
    )


def rounds(variant: Variant) -> list[list[str]]:
    """The paths to ask for."""
    numbers = iter(range(1, ROUNDS * REQUESTS + 1))
    kinds = [variant.kinds[number % len(variant.kinds)] for number in range(REQUESTS)]
    return [[f"/{kind}/{next(numbers)}/" for kind in kinds] for _ in range(ROUNDS)]
