"""Runs the site, and brings it into one of its states."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from servers import MariaDB
from servers.ports import free_port
from tests.support import ROOT
from tests.support.processes import entry, start_program
from tests.support.web_server import PATIENCE, eventually, fetch

#: Of each process's pool.
LIMIT = 4
STATES = ("quiet", "busy", "dry", "dead")
#: The pages that keep a connection.
HELD = ("reports/monthly/?token=secret", "orders/4711/", "reports/yearly/", "export.csv", "search/?q=secret")


class StatusSite:
    """The site: two processes, each with a pool of four, and a database server of its own, which can die."""

    def __init__(self, folder: Path) -> None:
        """
        :param folder: an empty one.
        """
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/pools/"
        self.server = MariaDB(folder / "server")
        self._threads: list[threading.Thread] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.server.start()
        try:
            self.server.create_database("shop")
            # So long that no checkout gives up, whatever the machine is busy with.
            pool = {"pool_size": LIMIT, "max_overflow": 0, "timeout": 300}
            environment = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.support.status_site.settings",
                "POOLLIFE_RUN_DIR": str(self.folder / "run"),
                "PYTHONPATH": str(ROOT),
                "STATUS_SITE_DATABASE": json.dumps(entry(self.server, "shop", POOL=pool)),
                "STATUS_SITE_FOLDER": str(self.folder),
            }
            command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}"]
            command += ["--config", "python:tests.support.status_site.gunicorn_conf"]
            self._process = start_program(command, self.folder / "log", environment)
            eventually("the site answers", self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        for thread in self._threads:
            thread.join()
        self.server.stop(immediate=True)

    def status(self) -> dict[str, Any]:
        """Return what the page's JSON says."""
        answer = fetch(self.port, "/pools/status.json")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def pool(self) -> dict[str, Any]:
        """Return the numbers of the one alias."""
        (pool,) = self.status()["aliases"]
        found: dict[str, Any] = pool
        return found

    def bring_to(self, state: str) -> None:
        """Bring the site into one of ``STATES``."""
        if not self.server.pid:
            self.server.start()
        {"quiet": self._quiet, "busy": self._busy, "dry": self._dry, "dead": self._dead}[state]()

    def release(self) -> None:
        """Have all held connections returned, and wait for that."""
        (self.folder / "released").touch()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    @contextmanager
    def holding(self, path: str) -> Iterator[None]:
        """Have a request for this path keep a connection during the block."""
        (self.folder / "released").unlink(missing_ok=True)
        self._start(path)
        try:
            yield
        finally:
            self.release()

    def _quiet(self) -> None:
        self.release()
        self._hold(lambda: len(self.status()["processes"]) == 2 and self.pool()["out"] >= 3)
        self.release()
        eventually("all connections are back", lambda: self.pool()["out"] == 0)

    def _busy(self) -> None:
        self._quiet()
        self._hold(lambda: self.pool()["out"] >= 3)

    def _dry(self) -> None:
        def dry() -> bool:
            found = self.status()["processes"]
            return len(found) == 2 and all(each["out"] == LIMIT and each["waiting"] for each in found)

        self._hold(dry)

    def _dead(self) -> None:
        self._quiet()
        self.server.stop(immediate=True)

        def found() -> bool:
            fetch(self.port, "/quick/")
            return bool(self.pool()["word"] == "no server")

        eventually("the page says that there is no server", found)

    def _hold(self, enough: Callable[[], bool]) -> None:
        """Send requests that keep a connection, or wait for one, until there are enough of them."""
        (self.folder / "released").unlink(missing_ok=True)
        names = cycle(HELD)

        def send_more() -> bool:
            if enough():
                return True
            before = self._count()
            request = self._start(f"/{next(names)}")
            # It fails at once in a process that has not found the server again.
            eventually("it borrows, or waits", lambda: self._count() > before or not request.is_alive())
            return enough()

        eventually("there are enough requests", send_more)

    def _start(self, path: str) -> threading.Thread:
        thread = threading.Thread(target=self._send, args=[path])
        self._threads.append(thread)
        thread.start()
        return thread

    def _count(self) -> int:
        return sum(each["out"] + each["waiting"] for each in self.status()["processes"])

    def _send(self, path: str) -> None:
        with suppress(OSError, HTTPException):
            fetch(self.port, path, 600)

    def _answers(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        try:
            return fetch(self.port, "/pools/").status == 200
        except OSError:
            return False
