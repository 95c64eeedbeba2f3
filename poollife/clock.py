"""The clock of all of poollife: seconds that only ever grow.

Everything that waits, or asks how old something is, calls ``clock.monotonic()``, and tests put another clock
in its place. Not ``time.monotonic``: freezegun stops it, and then a wait has no end. It puts its own function
into each loaded module where an attribute *is* one of those that it knows (``time.monotonic`` is, by whatever
name), and into ``time`` itself, so a module that is imported while the time is frozen gets the frozen one for
good. ``time.clock_gettime`` is none of those, and a ``partial`` of it, which is C, costs no Python call.
time-machine leaves this clock alone as well.

``time.sleep`` is looked up where it is called: gevent replaces it, maybe after poollife was imported. All
that wait by it have a deadline by this clock, so a test that replaces ``sleep`` by nothing has them end all
the same. ``close_at`` of Django's wrapper is by Django's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
