"""The monotonic clock of all of poollife, in seconds.

All code that waits, or that asks for an age, calls ``clock.monotonic()``, and tests put another clock in its
place. ``time.monotonic`` is not used: freezegun stops it, and then a wait has no end. freezegun puts its own
function into each loaded module where an attribute *is* one of the functions that it knows
(``time.monotonic`` is one, by whatever name), and into ``time`` itself. So a module that is imported while
the time is frozen gets the frozen function for good. freezegun does not know ``time.clock_gettime``, and a
``partial`` of it, which is implemented in C, costs no Python call. time-machine leaves this clock alone as
well.

``time.sleep`` is looked up where it is called: gevent replaces it, maybe after poollife was imported. All
code that waits by it has a deadline by this clock, so its waits end even if a test replaces ``sleep`` by a
function that does nothing. ``close_at`` of Django's wrapper is by Django's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
#: Seconds since 1970, for people and for files. It may jump.
wall: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_REALTIME)
