"""``poollife.uwsgi``: invariant 1 under uWSGI, sessions that end in order, and hooks of other code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import pytest
from MySQLdb import OperationalError

from servers import MariaDB
from tests.support import ROOT, needs
from tests.support.processes import Counts
from tests.support.uwsgi_site.running import (
    CLASSIC,
    REQUESTS,
    ROUNDS,
    VARIANTS,
    WHEEL,
    WORKERS,
    Build,
    Uwsgi,
    Variant,
    count,
)
from tests.support.web_server import PATIENCE, eventually

pytestmark = pytest.mark.slow

DEFAULT = VARIANTS["default"]


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """Nobody else's connections end on it."""
    with MariaDB() as server:
        yield server


#: The tests of what may differ between the two.
builds = pytest.mark.parametrize(
    "build",
    [
        pytest.param(WHEEL, id="wheel"),
        pytest.param(
            CLASSIC,
            id="Debian",
            marks=pytest.mark.skipif(bool(CLASSIC.unfit), reason=CLASSIC.unfit),
        ),
    ],
)

# --- invariant 1 -----------------------------------------------------------------------------------------


@pytest.mark.servers
@builds
@pytest.mark.parametrize("name", VARIANTS)
def test_workers_that_come_and_go_leave_the_masters_sessions_alone(
    server: MariaDB, tmp_path: Path, name: str, build: Build
) -> None:
    """Workers come and go, requests fork, and whoever loaded the application ends in its first sessions."""
    server.create_database("site")
    variant = replace(VARIANTS[name], build=build)
    generations = ROUNDS if variant.master else 1
    parents = 0 if variant.lazy else 2
    counts = count(server, "site", tmp_path, variant)
    # A worker may have answered everything while the other one slept.
    assert generations <= counts.processes - variant.helpers <= WORKERS * generations
    assert not counts.tracebacks, "\n".join(counts.tracebacks)
    assert counts == Counts(
        requests=ROUNDS * REQUESTS,
        processes=counts.processes,
        parent_sessions=parents,
        alive=parents,
        inherited_sockets=0,
        wrong_answers=0,
        over_limit=0,
        aborted=0,
        tracebacks=(),
    )


def test_debians_build_is_there_where_it_fits_this_python() -> None:
    """Without this one the tests of that build would be skipped in CI, too."""
    needs.uwsgi_of_debian()


@pytest.mark.servers
def test_without_the_hook_each_worker_begins_with_the_masters_sockets(
    server: MariaDB, tmp_path: Path
) -> None:
    """The guard alone keeps all answers right; but each worker begins with the master's sockets."""
    server.create_database("site")
    counts = count(server, "site", tmp_path, DEFAULT, without="hooks")
    assert counts.inherited_sockets == 2 * WORKERS * (ROUNDS + 1)
    assert (counts.alive, counts.wrong_answers, counts.aborted) == (2, 0, 0)


@pytest.mark.servers
def test_without_the_guard_a_worker_ends_a_session_of_the_master(server: MariaDB, tmp_path: Path) -> None:
    """The first worker that ends is the end of a session of the master's."""
    with site(server, tmp_path, without="guard") as uwsgi:
        uwsgi.replace_workers()
        uwsgi.end()
    assert uwsgi.sessions("end") != uwsgi.sessions("start")


# --- ends ------------------------------------------------------------------------------------------------


class Site(Uwsgi):
    """A uWSGI, and how many of its sessions have ended without a quit packet."""

    def __init__(
        self, server: MariaDB, folder: Path, variant: Variant, *arguments: str, without: str = ""
    ) -> None:
        server.create_database("site")
        database = {**server.database("site"), "ENGINE": "poollife.backends.mysql"}
        super().__init__(folder, database, variant, *arguments, without=without)
        self._server = server
        self._aborted = server.status("Aborted_clients")

    @property
    def aborted(self) -> int:
        return self._server.status("Aborted_clients") - self._aborted

    def wait_for_its_end(self) -> None:
        """Until the server has noticed, too."""
        self.process.wait(PATIENCE)
        eventually("all sessions end", lambda: not self._server.sessions())


@contextmanager
def site(
    server: MariaDB, folder: Path, variant: Variant = DEFAULT, *arguments: str, without: str = ""
) -> Iterator[Site]:
    """The site, served; no session of it is left at the end."""
    with Site(server, folder, variant, *arguments, without=without) as uwsgi:
        yield uwsgi
    uwsgi.wait_for_its_end()


@pytest.mark.servers
def test_max_requests(server: MariaDB, tmp_path: Path) -> None:
    one = replace(DEFAULT, workers=1)
    with site(server, tmp_path, one, "--max-requests", "5") as uwsgi:
        answers = [uwsgi.get(f"/echo/{number}/") for number in range(15)]
        eventually("a fourth worker", lambda: uwsgi.accepting == 4)
        uwsgi.end()
    assert [answer["right"] for answer in answers] == [True] * 15
    assert len({answer["pid"] for answer in answers}) == 3
    assert uwsgi.sessions("end") == uwsgi.sessions("start")
    assert uwsgi.aborted == 0


@pytest.mark.servers
@builds
@pytest.mark.parametrize("name", ["default", "threads", "fork-hooks", "lazy-apps"])
def test_reload(server: MariaDB, tmp_path: Path, name: str, build: Build) -> None:
    """The master too becomes a new program, and leaves nothing behind."""
    with site(server, tmp_path, replace(VARIANTS[name], build=build)) as uwsgi:
        before = uwsgi.get("/echo/1/")
        uwsgi.wait_until_idle()
        uwsgi.process.send_signal(signal.SIGHUP)
        eventually("others are ready", lambda: uwsgi.accepting == 2 * WORKERS)
        assert uwsgi.aborted == 0
        after = uwsgi.get("/echo/2/")
        uwsgi.end()
    assert before["pid"] != after["pid"]
    assert before["right"]
    assert after["right"]
    assert uwsgi.aborted == 0


@pytest.mark.servers
def test_python_is_not_torn_down(server: MariaDB, tmp_path: Path) -> None:
    """Exit handlers of Python do not run then; ours is in uWSGI's slot."""
    with site(server, tmp_path, DEFAULT, "--skip-atexit-teardown") as uwsgi:
        for number in range(10):
            uwsgi.get(f"/echo/{number}/")
        uwsgi.replace_workers()
        uwsgi.end()
    assert uwsgi.aborted == 0


@pytest.mark.servers
def test_a_thread_that_hangs_takes_no_session_along(server: MariaDB, tmp_path: Path) -> None:
    """Python waits for it, and uWSGI does not wait for Python."""
    one = replace(DEFAULT, workers=1)
    with site(server, tmp_path, one, "--enable-threads", "--worker-reload-mercy", "2") as uwsgi:
        hanging = uwsgi.get("/thread/")["session"]
        assert hanging in {session.id for session in server.sessions()}
        uwsgi.process.send_signal(signal.SIGHUP)
        eventually("another is ready", lambda: uwsgi.accepting == 2)
        assert "NO MERCY" in uwsgi.log
        assert uwsgi.aborted == 0
        uwsgi.end()
    assert uwsgi.aborted == 0


@pytest.mark.servers
def test_int_cuts_off_who_is_busy(server: MariaDB, tmp_path: Path) -> None:
    """uWSGI runs no exit handler in a worker that has a request, and in the others it does."""
    with site(server, tmp_path) as uwsgi:
        uwsgi.get("/echo/1/")
        with background(lambda: uwsgi.get("/sleep/worker/")):
            eventually("a request is busy", lambda: bool(asleep(server)))
            uwsgi.process.send_signal(signal.SIGINT)
            uwsgi.wait_for_its_end()
    assert uwsgi.sessions("end") == uwsgi.sessions("start")
    assert uwsgi.aborted == 1


@pytest.mark.servers
def test_a_mule_in_the_middle_of_a_query(server: MariaDB, tmp_path: Path) -> None:
    """It ends all the same, and takes nobody's session along."""
    with site(server, tmp_path, VARIANTS["mule + spooler"]) as uwsgi:
        uwsgi.get("/sleep/mule/")
        eventually("the mule is busy", lambda: bool(asleep(server)))
        (mules,) = asleep(server)
        uwsgi.process.terminate()
        uwsgi.process.wait(PATIENCE)
        # The quit packet of a mysqlclient before 2.3 waits on the wire for the end of the query.
        with suppress(OperationalError):
            server.execute("KILL QUERY %s", mules)
    assert uwsgi.sessions("end") == uwsgi.sessions("start")
    assert uwsgi.aborted <= 1


@pytest.mark.servers
def test_a_spooler_is_killed(server: MariaDB, tmp_path: Path) -> None:
    """Number 0 leaves its session open; the others call ``close_pool()``."""
    with site(server, tmp_path, VARIANTS["mule + spooler"]) as uwsgi:
        uwsgi.get("/send/0/")
        uwsgi.wait_for_jobs(2)
        uwsgi.end()
    assert uwsgi.aborted == 1


def asleep(server: MariaDB) -> list[int]:
    """The sessions that wait in SELECT SLEEP."""
    return [session.id for session in server.sessions() if session.state == "User sleep"]


@contextmanager
def background(request: Callable[[], object]) -> Iterator[None]:
    """While a request that will not be answered waits."""

    def ask() -> None:
        with suppress(OSError, HTTPException):
            request()

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    thread.join()


# --- the file to copy ------------------------------------------------------------------------------------


class Copy(Site):
    """Run with deploy/uwsgi.ini as it is, but for three values."""

    def command(self) -> list[str]:
        text = (ROOT / "deploy/uwsgi.ini").read_text()
        file = self.folder / "uwsgi.ini"
        for old, new in [
            ("mysite.wsgi", "tests.support.uwsgi_site.wsgi"),
            ("127.0.0.1:8000", f"127.0.0.1:{self.port}"),
            ("processes = 4", f"processes = {WORKERS}"),
        ]:
            assert text.count(old) == 1
            text = text.replace(old, new)
        file.write_text(text)
        build = self._variant.build
        return [*build.command, *build.arguments, "--ini", str(file), *self.signs]


@pytest.mark.servers
@builds
def test_the_file_to_copy(server: MariaDB, tmp_path: Path, build: Build) -> None:
    with Copy(server, tmp_path, replace(DEFAULT, build=build)) as uwsgi:
        answers = uwsgi.get_all([f"/echo/{number}/" for number in range(20)])
        uwsgi.end()
    uwsgi.wait_for_its_end()
    assert uwsgi.process.returncode == 0
    assert [answer["right"] for answer in answers] == [True] * 20
    assert [note["sockets"] for note in uwsgi.notes("child")] == [[]] * WORKERS
    assert uwsgi.aborted == 0
    assert "Traceback" not in uwsgi.log


# --- everybody's hooks, with a stub of uWSGI -------------------------------------------------------------

HEAD = """
import os, sys
import uwsgi


def theirs():
    print("theirs", begun())


def failing():
    print("failing", begun())
    raise RuntimeError("on purpose")


def begun():
    return "in order" if process.pid == os.getpid() else "too early"
"""
LOAD = """
import poollife.uwsgi
from poollife.process.atfork import at_fork
from poollife.process.guard import process
"""
DECORATORS = """
import uwsgidecorators
uwsgidecorators.postfork(failing)
uwsgidecorators.postfork(theirs)
"""
BY_HAND = """
previous = getattr(uwsgi, "post_fork_hook", lambda: None)


def chained():
    previous()
    theirs()


uwsgi.post_fork_hook = chained
"""
FORK = """
sys.stdout.flush()
pid = uwsgi.fork()
if pid:
    os.waitpid(pid, 0)
else:
    print(begun())
    sys.stdout.flush()
    os._exit(0)
"""
OTHER_CLASS = """
from types import ModuleType


class Other(ModuleType):
    kind = "other"


uwsgi.__class__ = Other
"""


def run(*parts: str, master: bool = True, stub: bool = True) -> tuple[list[str], str]:
    """Run a program, with a stub of uWSGI or without one: the lines that it printed, and its complaints."""
    paths = [ROOT, *([ROOT / "tests/support/uwsgi_stub"] if stub else [])]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(parts)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "UWSGI_STUB_MASTER": str(int(master)),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("master", [True, False])
@pytest.mark.parametrize(
    ("parts", "theirs"),
    [
        pytest.param((HEAD, LOAD), [], id="alone"),
        pytest.param(
            (HEAD, LOAD, LOAD, "import importlib; importlib.reload(poollife.uwsgi)"), [], id="twice"
        ),
        pytest.param((HEAD, "uwsgi.post_fork_hook = theirs", LOAD), ["theirs"], id="assigned before"),
        pytest.param((HEAD, LOAD, "uwsgi.post_fork_hook = theirs"), ["theirs"], id="assigned after"),
        pytest.param((HEAD, LOAD, "uwsgi.post_fork_hook = failing"), ["failing"], id="failing"),
        pytest.param((HEAD, LOAD, "uwsgi.post_fork_hook = None"), [], id="emptied"),
        pytest.param((HEAD, BY_HAND, LOAD), ["theirs"], id="by hand before"),
        pytest.param((HEAD, LOAD, BY_HAND), ["theirs"], id="by hand after"),
        pytest.param((HEAD, OTHER_CLASS, LOAD, "assert uwsgi.kind == 'other'"), [], id="another class"),
    ],
)
def test_ours_comes_first(parts: tuple[str, ...], theirs: list[str], master: bool) -> None:
    """Whoever else has assigned the slot, or will."""
    said, complaint = run(*parts, FORK, master=master)
    assert said == [*(f"{name} in order" for name in theirs), "in order"]
    assert (
        complaint.count("RuntimeError: on purpose") == complaint.count("Traceback") == theirs.count("failing")
    )


@pytest.mark.parametrize(
    "parts", [(HEAD, DECORATORS, LOAD), (HEAD, LOAD, DECORATORS)], ids=["before", "after"]
)
def test_beside_uwsgidecorators(parts: tuple[str, ...]) -> None:
    """It takes the slot when it is imported, and one of its functions that fails is the last one to run."""
    said, complaint = run(*parts, FORK)
    assert said == ["failing in order", "in order"]
    assert "on purpose" in complaint


def test_without_ours() -> None:
    """What the tests above would see: a C fork runs no hook of Python's."""
    said, _ = run(
        HEAD,
        "from poollife.process.guard import process; import poollife.process.atfork",
        "del uwsgi.post_fork_hook",
        FORK,
    )
    assert said == ["too early"]


HOUSEKEEPER = """
from poollife.pools.background import Housekeeper
housekeeper = Housekeeper("a housekeeper", lambda: 60.0)
at_fork.on_resume(housekeeper.call)
housekeeper.call()
"""
WATCH = """
from tests.support.stubs import StubBorrower, StubServer, stub_pool
StubBorrower(StubServer()).borrow(stub_pool("stub", leak_after=60))
"""
THREADS = """
import threading
print(*(thread.name for thread in threading.enumerate()), sep="\\n")
"""


@pytest.mark.parametrize("start", [HOUSEKEEPER, WATCH])
@pytest.mark.parametrize("master", [True, False])
def test_a_process_that_uwsgi_will_fork_in_c_has_no_thread_of_ours(start: str, master: bool) -> None:
    """A child would wait for that thread to take the interpreter's lock."""
    assert run(HEAD, LOAD, start, THREADS, master=master) == (["MainThread"], "")


@pytest.mark.parametrize(
    ("begin", "start", "name"),
    [
        pytest.param("uwsgi.begin()", HOUSEKEEPER, "a housekeeper", id="lazy-apps"),
        pytest.param("uwsgi.begin()", WATCH, "poollife-leaks", id="lazy-apps, leaks"),
        # It has loaded the application, and begins when the other workers are there.
        pytest.param(
            "", f"{HOUSEKEEPER}uwsgi.begin(); uwsgi.call('post_fork_hook')", "a housekeeper", id="first"
        ),
    ],
)
def test_a_worker_without_a_master_has_them(begin: str, start: str, name: str) -> None:
    said, complaint = run(HEAD, LOAD, begin, start, THREADS, master=False)
    assert (said, complaint) == (["MainThread", name], "")


def test_the_owner_is_no_child() -> None:
    """Without a master the slot is called in the first worker as well, which has loaded the application."""
    watch = """
class Participant:
    settle = lambda self: None
    strong_references = lambda self: None
    abandon = lambda self, held: print("abandoned in", "the loader" if os.getpid() == loader else "the child")

loader = os.getpid()
at_fork.join(Participant())
uwsgi.call("post_fork_hook")
"""
    said, complaint = run(HEAD, LOAD, watch, FORK, master=False)
    assert said == ["abandoned in the child", "in order"]
    assert complaint == ""


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("name", ["theirs", "failing"])
def test_our_end_comes_last(name: str, early: bool) -> None:
    """What theirs opens is closed, too."""
    assign = f"uwsgi.atexit = {name}"
    ours = "from poollife.process import uwsgi as slots; slots.at_exit(lambda: print('ours'))"
    parts = (assign, ours) if early else (ours, assign)
    said, complaint = run(HEAD, LOAD, *parts, "uwsgi.call('atexit')")
    assert said == [f"{name} in order", "ours"]
    assert ("on purpose" in complaint) == (name == "failing")


OUTSIDE = """
import sys
{before}
import poollife.uwsgi
poollife.uwsgi.close_pools_on_exit()
assert "django" not in sys.modules and "sqlalchemy" not in sys.modules
{after}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "assert 'uwsgi' not in sys.modules"),
        ("sys.modules['uwsgi'] = None", "assert sys.modules['uwsgi'] is None"),
        ("sys.modules['uwsgi'] = stub = object()", "assert sys.modules['uwsgi'] is stub"),
        # Somebody's stub need not have anything in it.
        ("import types; sys.modules['uwsgi'] = types.ModuleType('uwsgi')", ""),
    ],
    ids=["none", "blocked", "no module", "empty"],
)
def test_outside(before: str, after: str) -> None:
    """Nothing happens, and nothing is said."""
    assert run(OUTSIDE.format(before=before, after=after), stub=False) == ([], "")
