"""A look at the frames of all threads never makes the process stand still."""

from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
from types import FrameType

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


class Strike:
    """Raises ``KeyboardInterrupt`` at the nth point of ``current_frames()`` where CPython may deliver one."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_name == "current_frames":
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt


@pytest.mark.skipif(sys.version_info >= (3, 11, 9), reason="the interpreter itself has the collector off")
@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler has the profile function")
def test_the_collector_is_on_after_an_asynchronous_exception_at_each_point() -> None:
    struck = 0
    for number in itertools.count(1):
        strike = Strike(number)
        try:
            sys.setprofile(strike)
            current_frames()
        except KeyboardInterrupt:
            struck += 1
        finally:
            sys.setprofile(None)
        assert gc.isenabled(), number
        if strike.left > 0:
            break
    assert struck > 3


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
