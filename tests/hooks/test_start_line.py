"""The line that uWSGI, ASGI servers and Celery log when they start. gunicorn's: test_gunicorn.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from poollife import start_line
from servers import MariaDB, PostgreSQL
from servers.ports import free_port
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.celery_site.worker import Worker
from tests.support.celery_site.worker import sessions as sessions_of
from tests.support.processes import start_program
from tests.support.redis_server import Redis
from tests.support.uwsgi_site.running import WHEEL
from tests.support.web_server import PATIENCE, eventually, fetch

pytestmark = [pytest.mark.slow, pytest.mark.servers]

WSGI = "tests.support.start_site.wsgi"
ASGI = "tests.support.start_site.asgi"


class Site:
    """A server of the site, and what it has logged."""

    def __init__(self, folder: Path, entry: dict[str, Any], *command: str, **environment: str) -> None:
        self.port = free_port()
        self._log = folder / "log"
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.support.start_site.settings",
            "START_SITE_DATABASES": json.dumps({"default": entry}),
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        self._command = [part.format(port=self.port) for part in command]

    def start(self) -> None:
        self.process = start_program(self._command, self._log, self._environment)
        eventually("the site answers", self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        with suppress(OSError):
            return fetch(self.port, "/").status == 200
        return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def pid(self) -> int:
        return int(fetch(self.port, "/").body)

    def lines(self) -> list[str]:
        """Return the lines about numbers of connections."""
        marks = (") connections", " threads share ", "could not compare")
        lines = [line for line in self.log.splitlines() if "poollife" in line]
        return [line for line in lines if any(mark in line for mark in marks)]

    def kill(self) -> None:
        """End what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def serving(folder: Path, entry: dict[str, Any], *command: str, **environment: str) -> Iterator[Site]:
    site = Site(folder, entry, *command, **environment)
    site.start()
    try:
        yield site
    finally:
        site.kill()


@pytest.fixture
def pooled(mariadb: MariaDB, new_database: Callable[[], str]) -> dict[str, Any]:
    """The entry of an empty database."""
    pool = {"pool_size": 3, "max_overflow": 2}
    return {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql", "POOL": pool}


def allowed(mariadb: MariaDB) -> int:
    return int(mariadb.execute("SELECT @@max_connections")[0][0])


def workers_of(site: Site) -> set[int]:
    """Return the pids of both workers, as soon as both have answered."""
    seen: set[int] = set()

    def ask() -> bool:
        # A worker that ends may hang up.
        with suppress(OSError, HTTPException):
            seen.add(site.pid())
        return len(seen) >= 2

    eventually("both workers serve", ask)
    return seen


# --- uWSGI ------------------------------------------------------------------------------------------------

UWSGI = (
    *(*WHEEL.command, *WHEEL.arguments, "--module", WSGI, "--need-app", "--http-socket", "127.0.0.1:{port}"),
    *("--processes", "2", "--enable-threads", "--threads", "3", "--import", "poollife.uwsgi"),
)
MASTER = ("--master", "--min-worker-lifetime", "0", "--forkbomb-delay", "0")
VARIANTS = {
    "a master": (MASTER, ""),
    "a mule": ((*MASTER, "--mule"), ""),
    "no master": ((), ""),
    "lazy-apps": ((*MASTER, "--lazy-apps"), "yes"),
    "a call and a hook": (MASTER, "yes"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_uwsgi_logs_one_line_for_all_workers(
    mariadb: MariaDB, pooled: dict[str, Any], tmp_path: Path, name: str
) -> None:
    arguments, announces = VARIANTS[name]
    maximum = allowed(mariadb)
    text = f"2 workers x 5 (default) connections = 10; max_connections of the server is {maximum}"
    with serving(tmp_path, pooled, *UWSGI, *arguments, START_SITE_ANNOUNCES=announces) as site:
        eventually("the line", lambda: bool(site.lines()))
        if arguments:
            # Workers that come later, the first one's successor among them, are no start of the server.
            before = workers_of(site)
            for pid in before:
                os.kill(pid, signal.SIGHUP)
            eventually("other workers serve", lambda: not before & workers_of(site))
        assert site.lines() == [f"poollife INFO {text}"]


def test_uwsgi_logs_another_line_after_a_reload(
    mariadb: MariaDB, pooled: dict[str, Any], tmp_path: Path
) -> None:
    with serving(tmp_path, pooled, *UWSGI, *MASTER) as site:
        eventually("the line", lambda: len(site.lines()) == 1)
        site.process.send_signal(signal.SIGHUP)
        eventually("another line", lambda: len(site.lines()) == 2)
        assert len(set(site.lines())) == 1


def test_uwsgi_warns_of_too_few_connections_for_its_threads_and_of_too_many_for_the_server(
    mariadb: MariaDB, pooled: dict[str, Any], tmp_path: Path
) -> None:
    maximum = allowed(mariadb)
    pool = {"pool_size": maximum, "max_overflow": 0}
    with serving(tmp_path, {**pooled, "POOL": pool}, *UWSGI, *MASTER) as site:
        eventually("the line", lambda: bool(site.lines()))
        assert site.lines() == [
            f"poollife WARNING 2 workers x {maximum} (default) connections = {2 * maximum}; "
            f"max_connections of the server is {maximum}"
        ]


def test_uwsgi_serves_without_its_database(pooled: dict[str, Any], tmp_path: Path) -> None:
    entry = {
        **pooled,
        "PORT": str(free_port()),
        "POOL": {"outage_wait": 0, "max_overflow": 0, "pool_size": 2},
    }
    with serving(tmp_path, entry, *UWSGI, *MASTER) as site:
        eventually("the line", lambda: len(site.lines()) == 2)
        few, down = site.lines()
        assert few.startswith("poollife WARNING 3 threads share the 2 connections of 'default'")
        assert down.startswith("poollife WARNING could not compare the workers with the database server: (2")


def test_uwsgi_without_the_import_logs_no_line(pooled: dict[str, Any], tmp_path: Path) -> None:
    with serving(tmp_path, pooled, *UWSGI[:-2], *MASTER) as site:
        assert site.lines() == []


# --- ASGI -------------------------------------------------------------------------------------------------

UVICORN = ("uvicorn", "--port", "{port}", "--workers", "2", "--log-level", "info")
HYPERCORN = ("hypercorn", "--bind", "127.0.0.1:{port}", "--workers", "2")
GRANIAN = ("granian", "--port", "{port}", "--workers", "2", "--interface", "asgi")
#: The servers, and how each of them says that a worker has started.
ASGI_SERVERS = {"uvicorn": UVICORN, "hypercorn": HYPERCORN, "granian": GRANIAN}


def serve_asgi(folder: Path, entry: dict[str, Any], name: str, application: str) -> Any:
    command = (sys.executable, "-m", *ASGI_SERVERS[name], f"{ASGI}:{application}")
    return serving(folder, entry, *command)


@pytest.mark.parametrize("name", ASGI_SERVERS)
def test_an_asgi_server_logs_one_line_that_opens_no_session(
    mariadb: MariaDB, pooled: dict[str, Any], tmp_path: Path, name: str
) -> None:
    with serve_asgi(tmp_path, pooled, name, "application") as site:
        workers_of(site)
        assert site.lines() == ["poollife INFO up to 5 (default) connections in each process"]
        assert sessions_of(mariadb, pooled["NAME"]) == []


@pytest.mark.parametrize("name", ASGI_SERVERS)
def test_an_asgi_server_with_warm_sessions_compares_with_the_server(
    mariadb: MariaDB, pooled: dict[str, Any], tmp_path: Path, name: str
) -> None:
    maximum = allowed(mariadb)
    with serve_asgi(tmp_path, pooled, name, "warm") as site:
        workers_of(site)
        assert site.lines() == [
            f"poollife INFO up to 5 (default) connections in each process; max_connections of the server is "
            f"{maximum}, enough for {maximum // 5} processes"
        ]
        assert len(sessions_of(mariadb, pooled["NAME"])) == 2  # one for each process, as warm=1 says


def test_uvicorn_without_workers_logs_the_line(pooled: dict[str, Any], tmp_path: Path) -> None:
    command = (sys.executable, "-m", "uvicorn", "--port", "{port}", f"{ASGI}:application")
    with serving(tmp_path, pooled, *command) as site:
        assert site.lines() == ["poollife INFO up to 5 (default) connections in each process"]


def test_gunicorns_asgi_workers_leave_the_line_to_gunicorn(pooled: dict[str, Any], tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("gunicorn"))
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(
        "control_socket_disable = True\nimport poollife.gunicorn; poollife.gunicorn.install(globals())\n"
    )
    command = (sys.executable, program, "--config", str(config), "--bind", "127.0.0.1:{port}")
    more = ("--workers", "2", "--worker-class", "asgi", f"{ASGI}:application")
    with serving(tmp_path, pooled, *command, *more) as site:
        eventually("the line", lambda: bool(site.lines()))
        workers_of(site)
        (line,) = site.lines()
        assert "poollife: 2 workers x 5 (default) connections = 10;" in line


# --- Celery -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--pool", "prefork", "-c", "2"), "2 processes x 5 (default) connections = 10"),
        (("--pool", "prefork", "--autoscale", "4,1"), "4 processes x 5 (default) connections = 20"),
        (("--pool", "threads", "-c", "4"), "1 processes x 5 (default) connections = 5"),
        (("--pool", "solo"), "1 processes x 5 (default) connections = 5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_celery_logs_one_line_for_each_server(
    mariadb: MariaDB,
    postgresql: PostgreSQL,
    pooled: dict[str, Any],
    redis: Redis,
    tmp_path: Path,
    arguments: tuple[str, ...],
    text: str,
) -> None:
    maximum = allowed(mariadb)
    other = {
        **postgresql.database("postgres"),
        "ENGINE": "poollife.backends.postgresql",
        "POOL": pooled["POOL"],
    }
    databases = {"default": pooled, "other": other}
    with Worker(tmp_path, redis, databases, *arguments, worker_hijack_root_logger=True) as worker:
        worker.do("echo", 1)
        lines = [line for line in worker.log.splitlines() if " connections = " in line]
        children = [line for line in worker.log.splitlines() if "has children for the tasks" in line]
    text = f"INFO/MainProcess] {text}; max_connections of the server is "
    assert [line[line.index("INFO") :] for line in lines] == [
        f"{text}{maximum}",
        f"{text}300".replace("default", "other"),
    ]
    # With children, the main process keeps no session that asked. It keeps those of the site's import.
    assert len(children) == ("prefork" in arguments)
    assert all("Pool 'other' is closed" in line for line in children)


# --- the function ---------------------------------------------------------------------------------------


def test_each_server_has_a_line_and_each_alias_a_term(
    make_alias: MakeAlias, mariadb: MariaDB, postgresql: PostgreSQL
) -> None:
    pool = {"pool_size": 4, "max_overflow": 1}
    here, there = make_alias(POOL=pool, server=mariadb), make_alias(POOL=pool, server=mariadb)
    other = make_alias("poollife.backends.postgresql", server=postgresql, POOL=pool)
    told: list[str] = []
    start_line.announce(
        start_line.Server("a server", "workers", 3, 1), write=lambda level, text: told.append(text)
    )
    mine = [line for line in told if here in line or other in line]
    assert mine == [
        f"3 workers x 5 ({here}) + 5 ({there}) connections = 30; max_connections of the server is "
        f"{allowed(mariadb)}",
        f"3 workers x 5 ({other}) connections = 15; max_connections of the server is 300",
    ]
