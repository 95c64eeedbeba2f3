"""A private HAProxy in front of private database servers."""

from __future__ import annotations

import csv
import io
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from servers.missing import Missing
from servers.program import PrivateProgram, which

FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


class Target(NamedTuple):
    """A server behind the proxy."""

    name: str
    port: int
    #: The port of the agent that tells the server's role; None: the check asks the server itself.
    agent: int | None = None
    #: True if it is used only while all others are down.
    is_backup: bool = False


@dataclass(frozen=True)
class Behaviour:
    """The settings of HAProxy that decide what its clients notice."""

    #: The directives of the health check, such as ``option httpchk GET /primary``.
    check: Sequence[str] = ()
    #: Whether the sessions to a server end when its check fails.
    cuts: bool = True
    #: Seconds of silence after which HAProxy ends a session, on the side of the client and of the server.
    client_timeout: float = 3600.0
    server_timeout: float = 3600.0
    #: "first": one server, and another one if its check fails. "leastconn": the one with the fewest sessions.
    balance: str = "first"


class HAProxy(PrivateProgram):
    """A private HAProxy: one port, which leads to one of several servers of this machine."""

    name = "HAProxy"

    # "Hard stop": sessions end at once.
    _stop_signal = signal.SIGTERM
    _crash_signal = signal.SIGKILL

    def __init__(self, targets: Sequence[Target], behaviour: Behaviour | None = None) -> None:
        """Prepare a HAProxy; ``start()`` starts it.

        :param targets: the servers behind it, in the order of preference.
        :param behaviour: its settings; None: the defaults.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.behaviour = behaviour or Behaviour()
        self._admin = self.folder / "admin.sock"

    @staticmethod
    def find() -> Path | None:
        """Return the path of HAProxy's binary, or None where there is none."""
        return which("haproxy", FOLDERS)

    @classmethod
    def binary(cls) -> Path:
        """Return the path of HAProxy's binary.

        :raises Missing: if it is not installed.
        """
        if path := cls.find():
            return path
        raise Missing("missing: HAProxy; python3 tools/system_packages.py installs it")

    # --- used by the lab --------------------------------------------------------------------------------

    def ask(self, command: str) -> str:
        """Run a command of HAProxy's runtime API, such as ``show stat``, and return its answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self._admin))
            line.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: line.recv(65536), b"")).decode()

    def stat(self, name: str, field: str) -> str:
        """Return a field of ``show stat``, such as "status" or "scur".

        :param name: of a target, or "FRONTEND".
        :param field: its name.
        """
        rows = csv.DictReader(io.StringIO(self.ask("show stat").removeprefix("# ")))
        return next(row[field] for row in rows if row["svname"] == name)

    @property
    def opened(self) -> int:
        """Number of connections that clients have opened."""
        return int(self.stat("FRONTEND", "stot"))

    def is_up(self, name: str) -> bool:
        """Return whether the check of a target passes."""
        return self.stat(name, "status").startswith("UP")

    # --- the process ------------------------------------------------------------------------------------

    def _make_folders(self) -> None:
        """Make nothing: all files are in the folder itself."""

    def _command(self) -> list[str]:
        """Return the command line, and write the file of settings."""
        return [str(self.binary()), "-db", "-f", self._write("haproxy.cfg", "\n".join(self._lines()) + "\n")]

    def _lines(self) -> list[str]:
        how = self.behaviour
        cut = " on-marked-down shutdown-sessions" if how.cuts else ""
        return [
            "global",
            f"  stats socket {self._admin} mode 600 level admin",
            "defaults",
            "  mode tcp",
            "  timeout connect 1s",
            "  timeout check 1s",
            f"  timeout client {int(how.client_timeout * 1000)}ms",
            f"  timeout server {int(how.server_timeout * 1000)}ms",
            "listen database",
            f"  bind {self.host}:{self.port}",
            f"  balance {how.balance}",
            *(f"  {line}" for line in how.check),
            f"  default-server check inter 500ms fall 2 rise 1{cut}",
            *(f"  server {self._line(each)}" for each in self.targets),
        ]

    def _line(self, target: Target) -> str:
        agent = f" port {target.agent}" if target.agent else ""
        return f"{target.name} {self.host}:{target.port}{agent}{' backup' if target.is_backup else ''}"

    def _answers(self) -> bool:
        """Return whether the checks have decided on each target."""
        try:
            return all(self.stat(each.name, "status") in ("UP", "DOWN", "no check") for each in self.targets)
        except (OSError, StopIteration):
            return False
