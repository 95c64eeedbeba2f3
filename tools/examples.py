"""Run the sites of the folder ``examples``, each on a private server: ``make examples ARGS=gunicorn_mysql``.

Each site is started by the command that docs/five-minutes.md names for it, in a copy of its folder and on a
free port. It is used, counted at the database server, and ended. The exit status is 0 if each site did what
the page says.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers import PrivateServer
from servers.ports import free_port
from tests.support import ROOT
from tests.support.processes import SERVERS
from tests.support.redis_server import Redis
from tests.support.web_server import eventually, fetch

FOLDER = ROOT / "examples"
#: The port that the files and commands of the examples name.
PORT = "8000"
REQUESTS = 80
THREADS = 8
#: Seconds; only what hangs needs them.
PATIENCE = 60.0


@dataclass
class Site:
    """A copy of an example that runs."""

    folder: Path
    log: Path
    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def says(self, text: str) -> bool:
        """Return whether the log has a text; a site that has ended raises an error with its log."""
        log = self.log.read_text(errors="replace")
        if self.process.poll() not in (None, 0):
            raise RuntimeError(f"the site ended with status {self.process.returncode}:\n{log}")
        return text in log

    def wait(self, text: str) -> None:
        """Wait until the log has a text."""
        eventually(f"the log has {text!r}", lambda: self.says(text), PATIENCE)

    def end(self) -> None:
        """End the site as a supervisor does, and wait for its processes."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise


@dataclass
class Report:
    """The outcome of one example."""

    answers: int
    processes: set[int] = field(default_factory=set)
    #: Numbers at the database server.
    sessions: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, answers: Iterable[dict[str, int]]) -> Report:
        """Count answers, each of which has the number of its session and of its process."""
        found = list(answers)
        return cls(len(found), {each["process"] for each in found}, {each["session"] for each in found})


def ask_by_http(site: Site) -> Report:
    """Send requests from several threads at once."""

    def get(_: int) -> dict[str, int]:
        answer = fetch(site.port, "/")
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.body!r}")
        found: dict[str, int] = json.loads(answer.body)
        return found

    with ThreadPoolExecutor(THREADS) as executor:
        return Report.of(executor.map(get, range(REQUESTS)))


def ask_by_websocket(site: Site) -> Report:
    """Send requests, and messages on a websocket."""
    from websockets.sync.client import connect

    report = ask_by_http(site)
    with connect(f"ws://127.0.0.1:{site.port}/ws/") as websocket:
        for _ in range(5):
            websocket.send("which session?")
            report.sessions.add(int(websocket.recv(PATIENCE)))
            report.answers += 1
    return report


def send_tasks(site: Site) -> Report:
    """Send tasks, and collect their results."""
    from celery import Celery

    url = site.environment["BROKER_URL"]
    client = Celery(broker=url, backend=url, set_as_current=False)
    results = [client.send_task("mysite.tasks.session") for _ in range(REQUESTS)]
    return Report.of([result.get(timeout=PATIENCE) for result in results])


def read_rounds(site: Site) -> Report:
    """Wait for the end of the command, and read what it printed in each round."""
    site.process.wait(PATIENCE)
    lines = [line for line in site.log.read_text().splitlines() if line.startswith("{")]
    rounds: list[dict[str, Any]] = [json.loads(line) for line in lines]
    if kept := [each for each in rounds if each["out"]]:
        raise RuntimeError(f"the command kept a session while it slept: {kept}")
    return Report(len(rounds), {site.process.pid}, {number for each in rounds for number in each["sessions"]})


@dataclass(frozen=True)
class Example:
    """A folder of ``examples``, and what the page says about it."""

    database: str
    #: The command of the page.
    command: str
    #: The text that the log has when the site is ready.
    ready: str
    #: The line of poollife's that compares processes and connections; empty: there is none.
    line: str
    #: The most sessions of all processes together.
    limit: int
    use: Callable[[Site], Report]


EXAMPLES = {
    "gunicorn_mysql": Example(
        "mysql",
        "gunicorn --config gunicorn.conf.py",
        "poollife: ",
        "4 workers x 10 (default) connections = 40; max_connections of the server is",
        40,
        ask_by_http,
    ),
    "uwsgi_postgresql": Example(
        "postgresql",
        "uwsgi --ini uwsgi.ini",
        "spawned uWSGI worker 4",
        "4 workers x 10 (default) connections = 40; max_connections of the server is",
        40,
        ask_by_http,
    ),
    "channels_asgi": Example(
        "postgresql",
        "uvicorn mysite.asgi:application --workers 2 --port 8000",
        "Uvicorn running",
        "up to 10 (default) connections in each process; max_connections of the server is",
        20,
        ask_by_websocket,
    ),
    "celery_tasks": Example(
        "mysql",
        "celery --app mysite worker --concurrency 2 --loglevel INFO",
        " ready.",
        "2 processes x 2 (default) connections = 4; max_connections of the server is",
        4,
        send_tasks,
    ),
    "daemon_threads": Example(
        "mysql", "python manage.py run_jobs --rounds 3", "Pool 'default' begins", "", 5, read_rounds
    ),
}


def run(name: str, server: PrivateServer, database: str, folder: Path, broker: str = "") -> Report:
    """Run one example from its start to its end.

    :param name: the name of its folder.
    :param server: the private server.
    :param database: an empty database there.
    :param folder: an empty folder, for the copy of the example.
    :param broker: the URL of a Redis server, for the example with tasks.
    :raises RuntimeError: the site did not do what the page says.
    """
    example, port = EXAMPLES[name], free_port()
    site = start(name, server.database(database), folder, port, broker)
    try:
        site.wait(example.ready)
        if example.line:
            site.wait(example.line)
        report = example.use(site)
    finally:
        site.end()
    if len(report.sessions) > example.limit:
        raise RuntimeError(f"{name} had {len(report.sessions)} sessions, more than {example.limit}")
    eventually("the server has none of its sessions", lambda: not open_sessions(server, database))
    return report


def open_sessions(server: PrivateServer, database: str) -> list[int]:
    """Return the sessions of a database that are open."""
    return [session.id for session in server.sessions() if session.db == database]


def start(name: str, entry: dict[str, Any], folder: Path, port: int, broker: str) -> Site:
    """Copy an example, and start it by the command of the page."""
    place = folder / name
    shutil.copytree(FOLDER / name, place, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for path in place.rglob("*") if path.suffix in (".py", ".ini")):
        path.write_text(path.read_text().replace(f":{PORT}", f":{port}"))
    command = shlex.split(EXAMPLES[name].command.replace(PORT, str(port)))
    # The programs of the virtual environment, activated or not.
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        **{f"DB_{key}": str(entry[key]) for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")},
        "BROKER_URL": broker,
        "PATH": os.pathsep.join([str(scripts), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)]),
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Site(place, log, port, environment, process)


def main() -> int:
    """Run the examples that were asked for, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXAMPLES)}; default: all")
    names = parser.parse_args().names or list(EXAMPLES)
    if unknown := set(names) - set(EXAMPLES):
        parser.error(f"there is no example {', '.join(sorted(unknown))}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers: dict[str, PrivateServer] = {}
        broker = stack.enter_context(Redis(folder)).url if "celery_tasks" in names else ""
        for name in names:
            kind = EXAMPLES[name].database
            if kind not in servers:
                servers[kind] = stack.enter_context(SERVERS[kind]())
            servers[kind].create_database(name)
            began = time.monotonic()
            report = run(name, servers[kind], name, folder, broker)
            print(
                f"{name}: {report.answers} answers, {len(report.processes)} processes, "
                f"{len(report.sessions)} sessions of at most {EXAMPLES[name].limit}, "
                f"{time.monotonic() - began:.1f} s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
