"""gunicorn with one worker, as a process of the part ``throughput``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from benchmarks.process import ROOT, Failed
from servers.ports import free_port

#: Seconds for the start, and for the end.
PATIENCE = 30.0
#: The line of a traceback that names the error.
ERROR = re.compile(r"[\w.]+(Error|Exception|Failed|ImproperlyConfigured)\b")


class WebServer:
    """A server for a ``with`` block. The site answers at the latest after ``wait_until_ready()``."""

    def __init__(
        self, name: str, threads: int, site: dict[str, Any], log: Path, *, worker: str = "gthread"
    ) -> None:
        """Prepare the server.

        :param name: the contender's name.
        :param threads: the threads of the worker.
        :param site: Django's settings.
        :param log: the file for gunicorn's output.
        :param worker: the kind of gunicorn's worker.
        """
        self.name = name
        self.port = free_port()
        self._log = log
        self._environment = {**os.environ, "BENCHMARK_SITE": json.dumps(site), "PYTHONPATH": str(ROOT)}
        self._command = [sys.executable, "-m", "gunicorn", "--config", "python:benchmarks.gunicorn_conf"]
        self._command += [
            "--worker-class",
            worker,
            "--threads",
            str(threads),
            "--bind",
            f"127.0.0.1:{self.port}",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_ready(self) -> float:
        """Wait until the site answers, and return the seconds of CPU that the worker has used.

        :raises Failed: the site has not answered within ``PATIENCE`` seconds.
        """
        assert self._process
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                return self.cpu()
            except OSError:
                time.sleep(0.02)
        errors = [line for line in self._log.read_text(errors="replace").splitlines() if ERROR.match(line)]
        raise Failed(f"gunicorn does not serve: {errors[-1] if errors else 'it does not say why'}")

    def cpu(self) -> float:
        """Return the seconds of CPU that the worker has used."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/cpu", headers={"Connection": "close"})
            return float(connection.getresponse().read())
        finally:
            connection.close()
