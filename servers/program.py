"""The life of a private program: its folder, its process, and the guard that ends it."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from servers.ports import free_port

# A shell of its own runs this, for an owner that ends without cleaning up, for example by SIGKILL. Arguments:
# the owner, the program, the folder to remove (empty: none), and the signal that ends the program.
GUARD = """
while kill -0 "$1" && kill -0 "$2"; do sleep 1; done
kill -s "$4" "$2"
while kill -0 "$2"; do sleep 1; done
[ -z "$3" ] || rm -rf "$3"
"""

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class PrivateProgram(ABC):
    """A program that serves a port of this machine, in a folder of its own.

    The program belongs to the process that starts it, and does not outlive that process. ``stop()`` runs at
    the end of the ``with`` block and at exit. If the process is killed, a guard ends the program within
    seconds. In children forked from that process ``stop()`` does nothing, so they may exit in any way.
    """

    #: The product, for messages.
    name: ClassVar[str]

    #: The signal that ends the program and its sessions in an orderly way.
    _stop_signal: ClassVar[signal.Signals]
    #: The signal that ends it at once, as a crash does.
    _crash_signal: ClassVar[signal.Signals]

    host = "127.0.0.1"
    user = "poollife"
    password = "poollife"

    def __init__(self, folder: Path | None = None, *, options: Sequence[str] = ()) -> None:
        """Prepare a program; ``start()`` starts it.

        :param folder: the folder of the program, which stays. None: a temporary folder, which ``stop()``
            removes.
        :param options: of the program; they come last on the command line.
        """
        self._temporary = folder is None
        self.folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="poollife-"))
        self.port = free_port(self.host)
        self.options = tuple(options)
        self._log = self.folder / "server.log"
        #: Arguments of Popen by which the program and its tools run as another user than this process.
        self._identity: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.stop)

    # --- life cycle ---------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def find() -> Path | None:
        """Return the path of the program's binary, or None where there is none."""

    @property
    def pid(self) -> int | None:
        """Process id of the program, or None while it does not run."""
        return self._server.pid if self._server else None

    def start(self) -> Self:
        """Start the program, and wait until it answers.

        :returns: the program itself.
        :raises RuntimeError: if it runs already, is not installed, or does not start within a minute.
        """
        if self._server:
            raise RuntimeError("the server runs already")
        self._check_folder()
        self._owner = os.getpid()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._prepare()
        except BaseException:
            self.stop()
            raise
        return self

    def _prepare(self) -> None:
        """Make what the program needs, and start it."""
        self._make_folders()
        self._launch(self._command())
        self._wait()

    def stop(self, *, immediate: bool = False) -> None:
        """End the server, and remove the folder if it is a temporary one. A second call does nothing.

        :param immediate: end the server as a crash does: the commits of the last second may be lost. False:
            the server first ends its sessions.
        """
        if os.getpid() != self._owner:
            return  # a forked child: neither the server nor the folder is its own
        self.halt(immediate=immediate)
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, *, immediate: bool = False) -> None:
        """End the server and start it again, with the same data and port. All connections end.

        :param immediate: end the server as a crash does: the commits of the last second may be lost.
        """
        self.halt(immediate=immediate)
        self._launch(self._command())
        self._wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- parts that differ ------------------------------------------------------------------------------

    def _check_folder(self) -> None:
        """Look at the path of the folder before it is made.

        :raises ValueError: if the program can't use it.
        """

    @abstractmethod
    def _make_folders(self) -> None:
        """Make what the program needs in its folder."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program's command line, and write the files that it names."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the program serves its clients."""

    # --- files ------------------------------------------------------------------------------------------

    def _open_folder(self) -> None:
        """Let the program's user through the folder."""
        if self._identity:
            os.chown(self.folder, -1, self._identity["group"])
            self.folder.chmod(0o710)

    def _hand_over(self, path: Path) -> None:
        """Make the program's user the owner of a file."""
        if self._identity:
            os.chown(path, self._identity["user"], self._identity["group"])

    def _write(self, name: str, text: str) -> str:
        """Write a file that only the program's user may read, and return its path."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        self._hand_over(path)
        return str(path)

    # --- the process ------------------------------------------------------------------------------------

    def _launch(self, command: Sequence[str]) -> None:
        """Start the server's process, and the guard that ends it if this process is killed."""
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [*command, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # only the owner handles Ctrl-C at the terminal
                **self._identity,
            )
        folder = str(self.folder) if self._temporary else ""
        self._guard = subprocess.Popen(
            guard_command(self._owner, self._server.pid, folder, self._stop_signal),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait(self) -> None:
        """Wait until the server answers."""
        assert self._server
        deadline = time.monotonic() + START_SECONDS
        while self._server.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.02)
        log = self._log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"{self.name} did not start (exit status {self._server.returncode}):\n{log}")

    def halt(self, *, immediate: bool = False) -> None:
        """End the program, and keep its folder: ``start()`` starts it again with its data and its port.

        :param immediate: as for ``stop()``.
        """
        # In the other order the guard could signal a process that has got the server's old id.
        if self._guard:
            _end(self._guard, signal.SIGTERM)
        if self._server:
            _end(self._server, self._crash_signal if immediate else self._stop_signal)
        self._guard = self._server = None


def guard_command(
    owner: int, server: int, folder: str = "", end: signal.Signals = signal.SIGTERM
) -> list[str]:
    """Return the command of the guard.

    :param owner: the process whose end the guard waits for.
    :param server: the process that the guard ends then.
    :param folder: the folder that it removes afterwards; empty: none.
    :param end: the signal that ends the server.
    """
    return ["/bin/sh", "-c", GUARD, "guard", str(owner), str(server), folder, end.name.removeprefix("SIG")]


def which(name: str, folders: Sequence[str] = ()) -> Path | None:
    """Return the program's path, from PATH or one of the folders."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def other_user() -> dict[str, Any]:
    """Return the arguments by which Popen starts a program as nobody; none where this process is not root.

    Not as "postgres": that user may change the databases of the machine's own server.
    """
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    # The folder that this process is in may be closed to that user.
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ask a process to end, and make it end if it does not."""
    process.send_signal(how)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
