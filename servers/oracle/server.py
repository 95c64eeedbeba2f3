"""The stand-in as a private server: a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from servers.certificates import Certificates
from servers.private import PrivateServer, Session, Via
from servers.program import STOP_SECONDS

ROOT = Path(__file__).parents[2]
#: Calls that do not count as a round trip of a statement.
LIFE = ("logon", "logoff", "closed", "gone", "refused", "attributes", "schema")


class Call(NamedTuple):
    """A call that has arrived."""

    session: int
    #: Such as "logon", "execute", "fetch", "commit", "rollback", "ping", "logoff", "closed" (the client has
    #: said so) or "gone" (its socket has ended).
    kind: str
    #: The statement.
    text: str


class OracleStandIn(PrivateServer):
    """A server that unmodified python-oracledb (thin) and Django's unmodified Oracle backend can use.

    It speaks the protocol of Oracle 12.1 and calls itself 19. A database is a SID or a service name; each
    user has tables of its own in it. The data are in SQLite: Oracle's SQL is translated as far as Django's
    CRUD needs it (``sql.py``). It has neither PL/SQL nor NLS, and nothing it answers proves what Oracle does.
    """

    name: ClassVar[str] = "the stand-in for Oracle"
    _stop_signal = signal.SIGTERM
    _crash_signal = signal.SIGKILL
    user = "poollife"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        certificates: Certificates | None = None,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, certificates=certificates, options=options)
        self._databases: set[str] = set()

    @staticmethod
    def find() -> Path | None:
        """Return the interpreter."""
        return Path(sys.executable)

    # --- used by the tests ----------------------------------------------------------------------------------

    def create_database(self, name: str) -> None:
        self._ask("create", name)
        self._databases.add(name)

    def drop_database(self, name: str) -> None:
        self._ask("drop", name)
        self._databases.discard(name)

    def execute(self, sql: str, *args: Any, database: str = "") -> list[tuple[Any, ...]]:
        """Execute a statement in the database of ``poollife``; it takes no arguments."""
        return [tuple(row) for row in self._ask("execute", database, self.user, sql)]

    def calls(self, since: int = 0) -> list[Call]:
        """Return the calls that have arrived, from a number on."""
        return [Call(*call) for call in self._ask("calls", since)]

    def count(self) -> int:
        """Return how many round trips of statements have arrived."""
        return sum(call.kind not in LIFE for call in self.calls())

    def aborted(self) -> int:
        return sum(call.kind == "gone" for call in self.calls())

    def sessions(self, user: str | None = None) -> list[Session]:
        return [
            Session(number, name, database, doing, 0, None, statement)
            for number, name, database, doing, statement in self._ask("sessions")
            if user is None or user.upper() == name
        ]

    def kill(self, session: int) -> None:
        self._ask("kill", int(session))
        while any(each.id == int(session) for each in self.sessions()):
            pass

    def fail(self, session: int, code: int, text: str) -> None:
        """Have an error answer the next call of a session.

        :param code: such as 28.
        :param text: without its number.
        """
        self._ask("fail", int(session), code, text)

    def set_limit(self, limit: int | None = None) -> None:
        """Allow so many sessions; the next is refused with ORA-12516. None: no limit."""
        self._ask("set_limit", limit)

    def set_password(self, password: str) -> None:
        """Change the password of ``poollife``."""
        self._ask("set_password", self.user, password)

    def _address(self, via: Via) -> dict[str, Any]:
        if via != "tls":
            return {}
        assert self.certificates
        # A description, as Oracle's clients have it for TLS. It leads to a SID like HOST, PORT and NAME.
        return {"PORT": "", "OPTIONS": {"wallet_location": str(self.certificates.ca.parent)}}

    def database(self, name: str, *, via: Via = "tcp") -> dict[str, Any]:
        entry = super().database(name, via=via)
        if via == "tls":
            entry["NAME"] = (
                f"(DESCRIPTION=(ADDRESS=(PROTOCOL=tcps)(HOST=localhost)(PORT={self._ask('tls_port')}))"
                f"(CONNECT_DATA=(SID={name})))"
            )
        return entry

    # --- its process ----------------------------------------------------------------------------------------

    def _make_data(self, data: Path) -> None:
        data.mkdir()

    def _make_folders(self) -> None:
        self._data.mkdir(exist_ok=True)

    def _command(self) -> list[str]:
        tls = [str(self.certificates.cert), str(self.certificates.key)] if self.certificates else ["", ""]
        if self.certificates:
            # The file of a wallet, by its name.
            wallet = self.certificates.ca.parent / "ewallet.pem"
            wallet.write_bytes(self.certificates.ca.read_bytes())
        # By -c and not by -m: the folder that this process is in may be another.
        program = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom servers.oracle.__main__ import main; main()"
        )
        command = [sys.executable, "-c", program]
        return [*command, str(self.folder), str(self.port), self.user, self.password, *tls]

    def _wait(self) -> None:
        super()._wait()
        for name in self._databases:  # after a restart
            self._ask("know", name)

    def _answers(self) -> bool:
        try:
            self._ask("sessions")
        except OSError:
            return False
        return True

    def _ask(self, *question: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(STOP_SECONDS)
            line.connect(str(self.socket))
            with line.makefile("rwb") as lines:
                lines.write(json.dumps(question).encode() + b"\n")
                lines.flush()
                answer = json.loads(lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["is"]
