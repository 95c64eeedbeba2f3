"""Processes that take orders: a line of JSON each way, over standard input and output.

The first line that a process reads is the argument of its object; each later line is an order. The process
ends with its standard input, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class Process:
    """A running module, for a ``with`` block. A method call sends an order and returns the answer."""

    def __init__(self, name: str, module: str, beginning: Any) -> None:
        """Start the process and wait until it is ready.

        :param name: the name that an error mentions.
        :param module: the module that runs as a program.
        :param beginning: the first line.
        """
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        #: The answer to the first line.
        self.greeting = self._order(beginning)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __getattr__(self, order: str) -> Callable[..., Any]:
        return lambda *arguments: self._order([order, *arguments])

    def _order(self, message: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        if answer := self._process.stdout.readline():
            return json.loads(answer)
        raise RuntimeError(f"{self.name} failed:\n{self._process.communicate()[1]}")


def take_orders(make: Callable[[Any], Any]) -> None:
    """Make an object from the first line, and call its methods by the names in the later lines.

    :param make: the function that makes the object from the first line.
    """
    # The output of a package must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    target = make(json.loads(sys.stdin.readline()))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        print(json.dumps(getattr(target, order)(*arguments)), file=answers, flush=True)
