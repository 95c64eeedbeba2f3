"""The site, run: gunicorn with 3 workers of 3 threads, uWSGI with 2 of 2, Celery with 2 child processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from celery import Celery

from poollife.board.reader import Board, read_board
from poollife.board.views import Holder, Pool, Process
from servers import MariaDB, Missing, PostgreSQL, PrivateServer
from servers.ports import free_port
from tests.support import ROOT
from tests.support.operated_site import gunicorn_conf
from tests.support.processes import entry, start_program
from tests.support.redis_server import Redis
from tests.support.uwsgi_site.running import WHEEL
from tests.support.web_server import PATIENCE, eventually, fetch

NAME = "operated"
KINDS = ("gunicorn", "uwsgi", "celery")
#: Of each process's pool: fewer than a gunicorn worker has threads.
LIMIT = 2
MODULE = "tests.support.operated_site"


def rows(printed: str, title: str) -> list[dict[str, str]]:
    """Return the rows of a table in the output of ``pool_status``, each by the names of its columns.

    :param title: the beginning of the table's title.
    :raises StopIteration: there is no such table.
    """
    lines = iter(printed.splitlines())
    while not next(lines).startswith(title):
        pass
    next(lines)
    columns = [cell.strip() for cell in next(lines).strip("┃").split("┃")]
    next(lines)
    cells = [line.strip("│").split("│") for line in takewhile(lambda line: line.startswith("│"), lines)]
    return [dict(zip(columns, map(str.strip, row), strict=True)) for row in cells]


class OperatedSite:
    """The three servers of the site, for a ``with`` block."""

    def __init__(self, folder: Path, mariadb: MariaDB, postgresql: PostgreSQL) -> None:
        """
        :param folder: an empty one.
        """
        self.folder = folder
        self.servers: dict[str, PrivateServer] = {"default": mariadb, "reports": postgresql}
        self._ports = {"gunicorn": free_port(), "uwsgi": free_port()}
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._crowd = ThreadPoolExecutor(16)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if WHEEL.unfit:
            raise Missing(WHEEL.unfit)
        with ExitStack() as stack:
            stack.callback(self._crowd.shutdown)
            redis = stack.enter_context(Redis(self.folder))
            self._celery = Celery(broker=redis.url, backend=redis.url, set_as_current=False)
            stack.callback(self._celery.close)
            for server in self.servers.values():
                server.create_database(NAME)
                stack.callback(server.drop_database, NAME)
                make_accounts(server)
            stack.callback(self._end)
            # So long that no checkout gives up, whatever the machine is busy with.
            pool = {"pool_size": LIMIT, "max_overflow": 0, "timeout": 300}
            databases = {alias: entry(server, NAME, POOL=pool) for alias, server in self.servers.items()}
            site = {"databases": databases, "redis": redis.url, "folder": str(self.folder)}
            self._environment = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": f"{MODULE}.settings",
                "POOLLIFE_RUN_DIR": str(self.folder / "run"),
                "OPERATED_SITE": json.dumps(site),
                "PYTHONPATH": str(ROOT),
            }
            for kind, command in self._commands().items():
                self._programs[kind] = start_program(command, self._log(kind), self._environment)
            for kind in KINDS:
                self._wait_until_ready(kind)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def status(self, *arguments: str) -> str:
        """Run ``manage.py pool_status`` in a process of its own; return what it printed."""
        command = [sys.executable, "-m", "django", "pool_status", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def board(self) -> Board:
        (folder,) = (self.folder / "run").iterdir()
        return read_board(folder)

    def processes(self) -> dict[int, Process]:
        return {process.pid: process for process in self.board().processes}

    def pools(self) -> dict[int, Pool]:
        """Return the pool of the default alias of each process that has one."""
        return {
            pid: pool
            for pid, process in self.processes().items()
            for pool in process.pools
            if pool.alias == "default"
        }

    def gunicorn_workers(self) -> set[int]:
        """Return the ids of gunicorn's workers, when all of them are ready."""

        def living() -> set[int]:
            pids = [path.name.partition("-")[2] for path in self.folder.glob("worker-*")]
            return {int(pid) for pid in pids if Path("/proc", pid).exists()}

        eventually("all workers are ready", lambda: len(living()) == gunicorn_conf.workers)
        return living()

    def start(self, kind: str, work: str, *arguments: object) -> Future[Any]:
        """Have a server of this kind do this work; return its answer, or None if there is none."""
        if kind == "celery":
            result = self._celery.send_task(work, arguments)
            return self._crowd.submit(result.get, timeout=PATIENCE, propagate=False)
        return self._crowd.submit(self._fetch, kind, "/".join(["", work, *map(str, arguments), ""]))

    def holder(self, part: str) -> Holder:
        """Wait until a row of the board has this in the name of its work or thread, and return it."""
        eventually(f"{part} has a session", lambda: bool(self._holders(part)))
        (holder,) = self._holders(part)
        return holder

    def release(self, name: str) -> None:
        """Have the works of this name end, and wait until nothing is borrowed any more."""
        (self.folder / f"released-{name}").touch()
        self.wait_until_quiet()

    def wait_until_quiet(self) -> None:
        eventually("all sessions are returned", lambda: not self.board().holders)

    @contextmanager
    def releasing(self, name: str) -> Iterator[str]:
        """Release this name at the end of the block."""
        try:
            yield name
        finally:
            self.release(name)

    def _holders(self, part: str) -> list[Holder]:
        return [each for each in self.board().holders if part in f"{each.work} {each.thread}"]

    def _fetch(self, kind: str, path: str) -> Any:
        with suppress(OSError, HTTPException):  # the test may kill the worker
            status, body = fetch(self._ports[kind], path, 600)
            assert status == 200, body
            return json.loads(body)

    def _commands(self) -> dict[str, list[str]]:
        python, http = sys.executable, {kind: f"127.0.0.1:{port}" for kind, port in self._ports.items()}
        gunicorn = ["-m", "gunicorn", "--config", f"python:{MODULE}.gunicorn_conf"]
        uwsgi = ["--module", f"{MODULE}.wsgi", "--need-app", "--master", "--processes", "2"]
        uwsgi += ["--enable-threads", "--threads", "2", "--http-socket", http["uwsgi"], "--die-on-term"]
        celery = ["-m", "celery", "--app", f"{MODULE}.celery_app", "worker", "--pool", "prefork"]
        celery += ["--concurrency", "2", "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        return {
            "gunicorn": [python, *gunicorn, "--bind", http["gunicorn"]],
            "uwsgi": [*WHEEL.command, *WHEEL.arguments, *uwsgi],
            "celery": [python, *celery],
        }

    def _wait_until_ready(self, kind: str) -> None:
        eventually(f"{kind} is ready", lambda: self._is_ready(kind))

    def _is_ready(self, kind: str) -> bool:
        log = self._log(kind).read_text(errors="replace")
        assert self._programs[kind].poll() is None, log
        if kind == "celery":
            return " ready." in log
        # The first worker compares the workers with each server, which takes a checkout of each pool.
        announced = log.count(f"poollife: {gunicorn_conf.workers} workers x")
        if kind == "gunicorn" and announced < len(self.servers):
            return False
        return self._fetch(kind, "/echo/1/") is not None

    def _log(self, kind: str) -> Path:
        return self.folder / f"{kind}.log"

    def _end(self) -> None:
        for program in self._programs.values():
            program.terminate()
        for program in self._programs.values():
            with suppress(subprocess.TimeoutExpired):
                program.wait(PATIENCE)
            # Whatever is left of it.
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        # The server may notice later that a killed client is gone, and other tests count such sessions.
        for server in self.servers.values():
            wait_until_left(server)


def wait_until_left(server: PrivateServer) -> None:
    """Wait until the server has no session of the site any more."""
    eventually("all sessions have ended", lambda: NAME not in {each.db for each in server.sessions()})


def make_accounts(server: PrivateServer) -> None:
    """Make a table with one row, to be locked."""
    server.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)", database=NAME)
    server.execute("INSERT INTO accounts VALUES (1, 0)", database=NAME)
    server.execute(f"GRANT ALL ON accounts TO {server.user}", database=NAME)
