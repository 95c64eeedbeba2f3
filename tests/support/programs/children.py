"""Children of the programs: made, listened to and reaped, however they end."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from tests.support.programs import sockets

#: Seconds after which a child counts as hanging. Nothing else takes this long.
LIMIT = 30.0

Report = dict[str, Any]
Work = Callable[[], Report]
Ending = Callable[[], object]

_fork_context = multiprocessing.get_context("fork")
# PyDLL keeps the GIL, as an embedding server does when it forks: with CDLL another thread might have it at
# that moment, and no Python code would ever run in the child.
_libc = ctypes.PyDLL(None)


class Child:
    """One child, as its parent sees it."""

    def __init__(self, pid: int, pipe: int, process: BaseProcess | None = None) -> None:
        self.pid = pid
        self._pipe = pipe
        self._process = process
        self._deadline = time.monotonic() + LIMIT
        self._hung = False

    def finish(self) -> Report:
        """Wait for its end, and kill it if it hangs; return what it said, and its exit ``status``."""
        said = self._listen()
        if self._hung:
            os.kill(self.pid, signal.SIGKILL)
        status = self._wait()
        report: Report = json.loads(said) if said else {}
        return {**report, "status": "hung" if self._hung else status}

    def _listen(self) -> bytes:
        """Everything it writes until its end closes the pipe."""
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        said = b""
        while poller.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            if not (part := os.read(self._pipe, 65536)):
                break
            said += part
        else:
            self._hung = True
        os.close(self._pipe)
        return said

    def _wait(self) -> int | None:
        if self._process:
            self._process.join()
            # Another thread that starts a process looks after all of them: it may have reaped this one, and
            # be about to write down how that ended.
            while (status := self._process.exitcode) is None and time.monotonic() < self._deadline:
                time.sleep(0.001)
            return status
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def branch(*, bare: bool = False) -> tuple[Child | None, Callable[[Report], object]]:
    """Fork here. The parent gets the child; the child gets None, and what to report with.

    :param bare: by the C function, so that no hook of Python's runs.
    """
    reader, writer = os.pipe()
    pid = _libc.fork() if bare else os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader), json.dumps
    os.close(reader)
    return None, lambda report: os.write(writer, json.dumps(report).encode())


def fork(work: Work, ending: Ending | None = None, *, bare: bool = False) -> Child:
    """Fork a child that reports the sockets which it inherited and what ``work`` returns.

    It then leaves by an exception, SystemExit or what ``ending`` raises: through every block that its parent
    is in, up to the interpreter's normal end, which frees all that is left.
    """
    child, say = branch(bare=bare)
    if child:
        return child
    say(_report(work))
    if ending:
        ending()
    raise SystemExit(0)


def process(work: Work, ending: Ending | None = None) -> Child:
    """The same by ``multiprocessing``, whose children end with ``os._exit()``."""
    reader, writer = os.pipe()
    made = _fork_context.Process(target=_run_process, args=(reader, writer, work, ending))
    made.start()
    os.close(writer)
    assert made.pid
    return Child(made.pid, reader, made)


def _run_process(reader: int, writer: int, work: Work, ending: Ending | None) -> None:
    os.close(reader)
    os.write(writer, json.dumps(_report(work)).encode())
    if ending:
        ending()


def _report(work: Work) -> Report:
    inherited = list(sockets.held().values())
    try:
        return {"inherited": inherited, **work()}
    except BaseException as error:
        return {"inherited": inherited, "error": f"{type(error).__name__}: {error}"}


def finalize() -> NoReturn:
    """End as the interpreter ends by itself, from any thread; from 3.13 on, without that."""
    # Python 3.13 crashes here in the child of a thread that was not the main one, whatever was imported.
    if sys.version_info < (3, 13):
        ctypes.pythonapi.Py_Exit(0)
    os._exit(0)
