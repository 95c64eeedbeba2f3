"""Processes that take orders: a line of JSON each way, over standard input and output.

The first line that a process reads is the argument of its object; each later line is an order. The answer is
``{"answer": ...}``, or ``{"error": ...}`` with the first line of an error. The process ends with its standard
input, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
#: Seconds after which a process that does not answer is ended.
LIMIT = 600.0
#: Seconds after which a process that does not end is ended.
END = 20.0
T = TypeVar("T")


class Failed(Exception):
    """A process that did not do what it was asked for; the text is the first line of its error."""


class Process:
    """A running module, for a ``with`` block. A method call sends an order and returns the answer."""

    def __init__(
        self, name: str, module: str, beginning: Any, *, patched: bool = False, limit: float = LIMIT
    ) -> None:
        """Start the process and wait until it is ready.

        :param name: the name that an error mentions.
        :param module: the module that runs as a program.
        :param beginning: the first line.
        :param patched: have gevent patch the standard library first.
        :param limit: seconds after which it is killed if it does not answer.
        :raises Failed: the process does not start.
        """
        self.name = name
        self._limit = limit
        # A file: a process whose pipe is not read would wait when the pipe is full.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # _end() closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", *(["gevent.monkey", "--module"] if patched else []), module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            #: The answer to the first line.
            self.greeting = self._order(beginning)
        except Failed:
            self._end()
            raise

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """Have the process end by the end of its input, or end it."""
        try:
            self._process.communicate(timeout=END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def __getattr__(self, order: str) -> Callable[..., Any]:
        return lambda *arguments: self._order([order, *arguments])

    def _order(self, message: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        watch = threading.Timer(self._limit, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
        if not answer:
            raise Failed(self._last_words())
        found = json.loads(answer)
        if "error" in found:
            raise Failed(found["error"])
        return found["answer"]

    def _last_words(self) -> str:
        """Return how a process has ended that gave no answer, and the last line that it wrote."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"the process ended with status {status}: {lines[-1] if lines else 'without a word'}"


class Crew:
    """The processes of a part. A process that fails is left out of the rest of the part."""

    def __init__(self, processes: Sequence[Process], failed: dict[str, str]) -> None:
        """Keep the processes.

        :param processes: the processes, which must be running.
        :param failed: the errors by the name of the process; the crew adds to them.
        """
        self._processes = list(processes)
        self._failed = failed

    def each(self, work: Callable[[Process], T]) -> Iterator[tuple[str, T]]:
        """Yield the name of each process, and what the function returns for it."""
        for process in list(self._processes):
            try:
                yield process.name, work(process)
            except Failed as error:
                self._processes.remove(process)
                self._failed[process.name] = str(error)


def take_orders(make: Callable[[Any], Any]) -> None:
    """Make an object from the first line, and call its methods by the names in the later lines.

    :param make: the function that makes the object from the first line.
    """
    # The output of a package must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(work: Callable[[], Any]) -> None:
        try:
            found = {"answer": work()}
        except Exception as error:
            traceback.print_exc()
            found = {"error": first_line(error)}
        print(json.dumps(found), file=answers, flush=True)

    target: Any = None

    def begin() -> str:
        nonlocal target
        target = make(json.loads(sys.stdin.readline()))
        return "ready"

    answer(begin)
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        answer(lambda: getattr(target, order)(*arguments))  # noqa: B023


def first_line(error: BaseException) -> str:
    """Return the kind of an error, and the first line of its text."""
    text = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0].strip()
