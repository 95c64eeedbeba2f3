"""Web servers for the tests: gunicorn and uvicorn run ``request_site`` in a process of their own."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple, Self

from servers.ports import free_port
from tests.support import ROOT
from tests.support.processes import start_program

PATIENCE = 30.0


def eventually(what: str, happened: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for what nothing tells of when it happens: another process's doing."""
    deadline = time.monotonic() + patience
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"in {patience:.0f} seconds it did not come to this: {what}")
        time.sleep(0.01)


class Answer(NamedTuple):
    """A response, read to its end."""

    status: int
    body: bytes


def fetch(port: int, path: str, patience: float = PATIENCE) -> Answer:
    """Ask a server on this machine, in a connection of its own."""
    connection = HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        with connection.getresponse() as response:
            return Answer(response.status, response.read())
    finally:
        connection.close()


class Download:
    """A request whose response the client reads as slowly as it likes, or not at all."""

    def __init__(self, port: int, path: str) -> None:
        # A small window, so that the server can't get rid of much more than the client reads.
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        self._response: HTTPResponse | None = None

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    @property
    def response(self) -> HTTPResponse:
        """The head is read when it is asked for."""
        if self._response is None:
            self._response = HTTPResponse(self._socket)
            self._response.begin()
        return self._response

    def read(self, size: int | None = None) -> bytes:
        return self.response.read(size)

    def drop(self) -> None:
        """Leave without a word: a reset, as when a phone loses its network."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._response:
            self._response.close()
        self._socket.close()


class WebServer:
    """One process that serves the site: ``sync`` or ``gthread`` is gunicorn, ``uvicorn`` is uvicorn."""

    def __init__(self, kind: str, log: Path, *, threads: int = 4, **site: Any) -> None:
        """Prepare it; the ``with`` block starts and ends it.

        :param site: what ``tests.support.request_site.settings`` reads: DATABASES, MIDDLEWARE.
        """
        self.port = free_port()
        self._log = log
        self._environment = {**os.environ, "REQUEST_SITE": json.dumps(site), "PYTHONPATH": str(ROOT)}
        self._environment.pop("DJANGO_SETTINGS_MODULE", None)
        if kind == "uvicorn":
            arguments = ["tests.support.request_site.asgi:application"]
            arguments += ["--port", str(self.port), "--lifespan", "off"]
            arguments += ["--log-level", "warning", "--timeout-graceful-shutdown", "2"]
        else:
            arguments = ["--config", "python:tests.support.request_site.gunicorn_conf"]
            arguments += ["--worker-class", kind]
            arguments += ["--bind", f"127.0.0.1:{self.port}", "--log-level", "warning"]
            arguments += ["--threads", str(threads)] if kind == "gthread" else []
        program = "uvicorn" if kind == "uvicorn" else "gunicorn"
        self._command = [sys.executable, "-m", program, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = start_program(self._command, self._log, self._environment)
        try:
            eventually("the web server answers", self._answers)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> Answer:
        return fetch(self.port, path)

    def open(self, path: str) -> Download:
        """Send a request, and leave the reading to the caller."""
        return Download(self.port, path)

    def stats(self) -> dict[str, Any]:
        """What the site says of itself."""
        answer = self.get("/stats")
        assert answer.status == 200, self.log
        stats: dict[str, Any] = json.loads(answer.body)
        return stats

    def pool(self) -> dict[str, Any]:
        pool: dict[str, Any] = self.stats()["pools"]["default"]
        return pool

    def _answers(self) -> bool:
        assert self._process
        if self._process.poll() is not None:
            raise AssertionError(f"the web server ended with status {self._process.returncode}:\n{self.log}")
        try:
            return self.get("/stats").status == 200
        except OSError:
            return False

    def _end(self) -> None:
        assert self._process
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
