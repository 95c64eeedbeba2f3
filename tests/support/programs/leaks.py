"""A process with a leak forks while a thread looks after that; the child leaks, too."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import Any

from django.db import connection

from tests.support.programs.databases import ask, set_up

PATIENCE = 30.0


class Heard(logging.Handler):
    """What the log says of leaks, by the words that matter."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.told += [words for words in ("has had", "is back") if words in text]

    def leak(self) -> list[str]:
        """Borrow until somebody complains."""
        ask("SELECT 1")
        self.wait()
        connection.close()
        return self.told

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.told and time.monotonic() < deadline:
            time.sleep(0.01)


def main(database: dict[str, Any]) -> dict[str, Any]:
    set_up({"default": database})
    heard = Heard()
    logging.getLogger("poollife").addHandler(heard)
    ask("SELECT 1")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        heard.told.clear()
        threads = [thread.name for thread in threading.enumerate() if thread.name == "poollife-leaks"]
        os.write(write, json.dumps([threads, heard.leak()]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    threads, told = json.loads(os.read(read, 10_000))
    heard.wait()
    connection.close()
    return {"parent": heard.told, "child": told, "threads": threads}


if __name__ == "__main__":
    print(json.dumps(main(*map(json.loads, sys.argv[1:]))))
