"""How poollife knows that it is in another process, without a call to the system."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

#: Forks in C, as no hook sees it, and then by Python; prints what parent, child and grandchild see.
PROGRAM = """
import ctypes, os, sys
from poollife.process import guard

if {without_page}:
    guard._wiped_page = lambda: None
    guard.process = guard.Process()
alive = guard.process.alive
fork = {{"C": ctypes.CDLL(None).fork, "Python": os.fork}}[sys.argv[1]]


def generation(number):
    print(number, alive[0] == 1, flush=True)
    if number < 2 and fork() == 0:
        print(number, "child before", alive[0] == 1, flush=True)
        guard.process.enter()
        generation(number + 1)
        os._exit(0)
    if number < 2:
        os.wait()
        print(number, "parent after", alive[0] == 1, flush=True)


generation(0)
"""


@pytest.mark.parametrize("without_page", [False, True], ids=["page", "asking"])
@pytest.mark.parametrize("fork", ["C", "Python"])
def test_a_child_is_not_alive_before_it_has_entered(fork: str, without_page: bool) -> None:
    """With a page that the kernel wipes, and, as on other systems, by asking for the pid."""
    program = PROGRAM.format(without_page=without_page)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, fork],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "0 True",
        "0 child before False",
        "1 True",
        "1 child before False",
        "2 True",
        "1 parent after True",
        "0 parent after True",
    ]


def test_linux_has_the_page() -> None:
    """Otherwise each statement would ask the system, several times."""
    if sys.platform != "linux":
        pytest.skip("the page is Linux's")
    from poollife.process.guard import alive

    assert isinstance(alive, memoryview)


def test_a_system_that_accepts_any_advice_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator may ignore the advice and say that all went well: then the page would lie in each child."""
    from poollife.process import guard

    class Careless(mmap.mmap):
        def madvise(self, *_: int) -> None:
            pass

    monkeypatch.setattr(mmap, "mmap", Careless)
    assert guard._wiped_page() is None


#: A thread has its first checkout, which imports SQLAlchemy, slowly; the process forks meanwhile.
IMPORTING = """
import importlib.abc, os, signal, sys, threading, time
from django.conf import settings
settings.configure(
    DATABASES={{"default": {{"ENGINE": "poollife.backends.sqlite3", "NAME": {name!r}}}}},
    INSTALLED_APPS=["poollife"],
)
import django
django.setup()
from django.db import connection

importing = threading.Event()


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "sqlalchemy.pool":
            importing.set()
            time.sleep(0.3)


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=query)
thread.start()
importing.wait()
if (child := os.fork()) == 0:
    signal.alarm(10)
    query()
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_fork_waits_until_the_first_checkout_has_imported_its_modules(tmp_path: Path) -> None:
    """A child that was forked in the middle of it would wait for ever, for a thread that it does not have."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTING.format(name=str(tmp_path / "database"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
