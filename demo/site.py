"""The ticket desk under gunicorn."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.databases import Database

ROOT = Path(__file__).resolve().parent.parent
_STARTING = 30.0  # seconds
_STOPPING = 20.0


class SiteError(Exception):
    """The error of a site that did not start, or has ended. Its text ends with the last lines of the log."""


class Site:
    """A gunicorn that the runner starts and stops."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Prepare a site without starting it.

        :param database: the site's database.
        :param folder: the folder for the log and for the master's notes.
        """
        self.address = ("127.0.0.1", 0)
        self._folder = folder
        self._log = folder / "gunicorn.log"
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "demo.settings",
            "POOLLIFE_DEMO_DATABASE": json.dumps(database.settings()),
            "POOLLIFE_DEMO_FOLDER": str(folder),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the site for a browser."""
        return f"http://{self.address[0]}:{self.address[1]}/"

    def prepare(self) -> None:
        """Create the tables and fill them.

        :raises SiteError: a command failed.
        """
        command = [sys.executable, "-m", "demo.prepare"]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        if done.returncode:
            raise SiteError(f"The tables could not be created:\n{_tail(done.stderr)}")

    def start(self, port: int = 0) -> None:
        """Start gunicorn on a socket that is already bound, so that no other program can take the port.

        :param port: the port; 0: any free one.
        :raises SiteError: the site does not answer.
        """
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.address = listener.getsockname()
            command = [sys.executable, "-m", "gunicorn", "-c", "demo/gunicorn.conf.py"]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*command, "--bind", f"fd://{listener.fileno()}"],
                    cwd=ROOT,
                    env=self._environment,
                    pass_fds=[listener.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches the runner only, which then stops gunicorn
                )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _STARTING
        while time.monotonic() < deadline:
            if not self.is_running():
                raise SiteError(f"gunicorn did not start. The end of its log:\n{self.log_tail()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise SiteError(
            f"gunicorn gave no answer in {_STARTING:.0f} s. The end of its log:\n{self.log_tail()}"
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self.address, timeout=2) as client:
                client.sendall(b"GET /__pool__/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return client.recv(12).endswith(b"200")
        except OSError:
            return False

    def is_running(self) -> bool:
        """Return whether gunicorn's master runs."""
        return self._process is not None and not _has_ended(self._process.pid)

    def log_tail(self) -> str:
        """Return the last lines of gunicorn's log."""
        return _tail(self._log.read_text(errors="replace") if self._log.exists() else "")

    def note(self, name: str) -> int | str | None:
        """Return the master's note about its session: "master" at the start, "farewell" at the end."""
        path = self._folder / f"{name}.json"
        return json.loads(path.read_text())["session"] if path.exists() else None

    def stop(self) -> None:
        """Ask the master to end, which ends its workers first; then kill the rest of its process group."""
        if self._process is None:
            return
        self._process.terminate()
        deadline = time.monotonic() + _STOPPING
        while not _has_ended(self._process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        # The master is not waited for yet, so no other process can have its id, which is also its group's.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextmanager
def running(site: Site, port: int) -> Iterator[None]:
    """Start the site, and stop it at the end of the block."""
    try:
        site.start(port)
        yield
    finally:
        site.stop()


def _tail(text: str, lines: int = 25) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it is empty)"
