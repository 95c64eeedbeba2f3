"""A look at the frames of all threads never makes the process stand still."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from poollife.executors import current_frames
from tests.support.programs.running import run

LOOKS = 400


def test_a_look_at_the_frames_while_threads_are_started_and_finalizers_run() -> None:
    """CPython's issue 106883: with ``sys._current_frames()``, Python 3.11.0 to 3.11.8 stand still."""
    report = run("frames", LOOKS)
    assert report == {"threads seen": True, "collected": True, "on": True}


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_afterwards_as_it_was(*, on: bool) -> None:
    if not on:
        gc.disable()
    try:
        assert threading.get_ident() in current_frames()
        assert gc.isenabled() == on
    finally:
        gc.enable()


def test_a_child_has_its_collector_on_whatever_another_thread_was_doing() -> None:
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            current_frames()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            child = os.fork()
            if child == 0:
                os._exit(0 if gc.isenabled() else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        thread.join()
