"""The agent of deploy/ that tells a load balancer the role of a database server."""

from __future__ import annotations

import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from servers.postgresql import PostgreSQL
from servers.private import PrivateServer
from servers.program import PrivateProgram

PROGRAM = Path(__file__).parent.parent / "deploy" / "role_agent.py"


class RoleAgent(PrivateProgram):
    """The agent of one private server."""

    name = "deploy/role_agent.py"

    _stop_signal = signal.SIGTERM
    _crash_signal = signal.SIGKILL

    def __init__(self, server: PrivateServer) -> None:
        """Prepare an agent; ``start()`` starts it.

        :param server: the server that it asks.
        """
        super().__init__()
        self._asked = server

    @staticmethod
    def find() -> Path:
        """Return the path of the agent."""
        return PROGRAM

    def ask(self, path: str) -> int:
        """Return the status of the answer to a path, such as "/primary"."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.port}{path}") as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def _make_folders(self) -> None:
        """Make nothing: it has no files."""

    def _command(self) -> list[str]:
        kind = "--postgresql" if isinstance(self._asked, PostgreSQL) else "--mysql"
        environment = [f"AGENT_USER={self._asked.user}", f"AGENT_PASSWORD={self._asked.password}"]
        address = [f"--port={self._asked.port}", f"--listen={self.host}:{self.port}"]
        return ["env", *environment, sys.executable, str(PROGRAM), kind, *address]

    def _answers(self) -> bool:
        try:
            return self.ask("/") > 0
        except OSError:
            return False
