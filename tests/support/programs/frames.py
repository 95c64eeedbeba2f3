"""Looks at the frames of all threads, while finalizers give up the GIL and other threads start threads."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
import weakref
from typing import Any

from poollife.executors import current_frames

#: Threads that do nothing: the more there are, the more memory an answer takes.
IDLE = 40
#: Threads that start threads.
STARTING = 3


class Circle:
    """Only the collector finds it."""

    def __init__(self) -> None:
        self.me = self


def finalize(_: weakref.ref[Circle]) -> None:
    for _number in range(200_000):  # long enough for another thread to ask for the GIL
        pass
    time.sleep(0)


def main(looks: int) -> None:
    over = threading.Event()

    def start_threads() -> None:
        while not over.is_set():
            threading.Thread(target=int).start()

    for _ in range(STARTING):
        threading.Thread(target=start_threads).start()
    for _ in range(IDLE):
        threading.Thread(target=over.wait).start()
    # Whatever is allocated has the collector run, unless that is switched off.
    gc.set_threshold(1)
    kept: list[Any] = []
    seen = 0
    for _ in range(looks):
        gc.disable()
        kept.append(weakref.ref(Circle(), finalize))
        gc.enable()
        seen = max(seen, len(current_frames()))
    on = gc.isenabled()
    over.set()
    collected = any(reference() is None for reference in kept)
    print(json.dumps({"threads seen": seen > IDLE, "collected": collected, "on": on}))


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
