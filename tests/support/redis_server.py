"""A private Redis server: what the tests' task queues keep their messages in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from servers import Missing
from servers.ports import free_port
from servers.program import guard_command

PATIENCE = 30.0
#: The last one is the server, too, if it is called by the server's name. It is in Debian's redis-tools, which
#: brings no system service along.
BINARIES = ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb")


class Redis:
    """It keeps nothing, and does not outlive the process that starts it."""

    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        """:param folder: for its log."""
        self.port = free_port(self.host)
        self.url = f"redis://{self.host}:{self.port}/0"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Redis:
        binary = next(filter(None, map(shutil.which, BINARIES)), None)
        if not binary:
            raise Missing("missing: a Redis server; python3 tools/system_packages.py installs one")
        command = ["redis-server", "--bind", self.host, "--port", str(self.port), "--save", ""]
        server = self._start([*command, "--dir", str(self._folder)], binary)
        # Ends it, should this process be killed.
        guard = guard_command(os.getpid(), server.pid)
        self._start(guard, guard[0])
        try:
            self._wait(server)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # The guard first, lest it signal a process that has got the server's old id.
        while self._processes:
            process = self._processes.pop()
            process.terminate()
            process.wait()

    def _start(self, command: list[str], binary: str) -> subprocess.Popen[bytes]:
        with (self._folder / "redis.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                executable=binary,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def _wait(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection((self.host, self.port)):
                return
            time.sleep(0.01)
        raise RuntimeError(f"Redis did not start:\n{(self._folder / 'redis.log').read_text()}")
