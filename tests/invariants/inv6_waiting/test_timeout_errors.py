"""Invariant 6, the error of a wait in vain: what is out, which work holds it, why, and what to do."""

from __future__ import annotations

import inspect
import pickle
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.http import HttpRequest, HttpResponse

from poollife import auto_close_db
from poollife.conf import DEFAULTS, PoolOptions
from poollife.errors import Hold, PoolTimeout, remembered
from poollife.executors import current_frames
from poollife.pools.exhaustion import NAMED, Situation, likeliest_cause, timeout_of
from poollife.stacks import is_own, line_in, stack_of, text_of
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support import ROOT
from tests.support.borrowing import PATIENCE, Busy, connection_id, out, run
from tests.support.counting import pool_of
from tests.support.handlers import site, wsgi
from tests.support.web_server import WebServer, eventually

ONE = {"pool_size": 1, "max_overflow": 0, "timeout": 0.1}


def wait_in_vain(alias: str) -> PoolTimeout:
    """In a thread of its own, which is nobody's."""
    caught: list[PoolTimeout] = []

    def wait() -> None:
        with pytest.raises(PoolTimeout) as info:
            connection_id(alias)
        caught.append(info.value)

    run(threading.Thread(target=wait, name="waiter"))
    return caught[0]


@contextmanager
def busy(alias: str, *names: str) -> Iterator[None]:
    """Threads of these names have a connection each."""
    with ExitStack() as stack:
        for name in names:
            work = Busy(alias)
            thread = threading.Thread(target=work.work, name=name)
            thread.start()
            stack.callback(thread.join, PATIENCE)
            stack.callback(work.go_on.set)
            assert work.begun.wait(PATIENCE)
        yield


# --- what it says -------------------------------------------------------------------------------------------


def test_its_attributes(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 1, "timeout": 0.1, "recycle": 60})
    with busy(alias, "first", "second"):
        error = wait_in_vain(alias)
    assert isinstance(error, OperationalError)
    assert error.pool == alias
    assert error.waited >= 0.1
    assert (error.size, error.overflow, error.out) == (1, 1, 2)
    assert (error.opening, error.waiting) == (0, 0)
    assert [hold.thread for hold in error.holders] == ["first", "second"]
    assert [hold.work for hold in error.holders] == [None, None]
    assert error.holders[0].held >= error.holders[1].held
    assert error.settings == {"pool_size": 1, "max_overflow": 1, "timeout": 0.1, "recycle": 60}
    assert error.__cause__ is None


def test_its_text(make_alias: MakeAlias) -> None:
    """One line that says all for a log, and more for people."""
    alias = make_alias(POOL=ONE)
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    lines = str(error).splitlines()
    assert lines[0] == error.summary
    assert lines[0] == (
        f"No connection of pool {alias!r} became free within 0.1 s: all 1 are out. "
        f"Likeliest cause: {error.likeliest_cause}"
    )
    assert lines[1] == "Held longest:"
    assert re.match(r"  thread worker for \d+\.\d s", lines[2])
    assert lines[3] == (f'Ruled by DATABASES[{alias!r}]["POOL"]: pool_size=1, max_overflow=0, timeout=0.1')
    so_far = (
        "1 checkouts, 1 of them queued or opened a session, 1 time-outs; 1 sessions opened, 0 could not be"
    )
    assert re.fullmatch(f"So far in this process: {so_far}", lines[4])
    assert len(lines) == 5


def test_it_says_what_a_holder_is_at_now(make_alias: MakeAlias) -> None:
    """Without tracing, too."""
    alias = make_alias(POOL=ONE)
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    (hold,) = error.holders
    assert hold.borrowed_at is None
    assert hold.now_at is not None
    _, first = inspect.getsourcelines(Busy.work)
    assert re.search(rf"tests/support/borrowing\.py:{first + 4} in work$", hold.now_at), hold.now_at


def test_with_tracing_it_says_who_borrowed(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "trace": True})
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    (hold,) = error.holders
    assert hold.borrowed_at
    innermost, helper, caller = hold.borrowed_at.split(", called at ")
    assert innermost.endswith(" in hold")
    _, first = inspect.getsourcelines(connection_id)
    assert helper.endswith(f"tests/support/borrowing.py:{first + 2} in connection_id")
    _, first = inspect.getsourcelines(Busy.work)
    assert caller.endswith(f"tests/support/borrowing.py:{first + 2} in work")
    assert f"borrowed at {hold.borrowed_at}, now at {hold.now_at}" in str(error)


def test_it_names_some_of_many(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "pool_size": NAMED + 2})
    with busy(alias, *(f"worker-{number}" for number in range(NAMED + 2))):
        error = wait_in_vain(alias)
    assert len(error.holders) == NAMED + 2
    assert str(error).count("thread worker-") >= NAMED
    assert "  and 2 more\n" in str(error)


def test_others_that_wait_are_counted(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "timeout": PATIENCE})
    waiters = [Busy(alias) for _ in range(3)]
    threads = [threading.Thread(target=waiter.work) for waiter in waiters]
    with busy(alias, "worker"):
        for thread in threads:
            thread.start()
        eventually("all wait", lambda: pool_of(alias).waiting == 3)
        error = timeout_of(pool_of(alias), PATIENCE)
    for waiter in waiters:
        waiter.go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert error.waiting == 3
    assert "all 1 are out, 3 others wait." in error.summary
    assert pool_of(alias).waiting == 0


def test_it_survives_pickling(make_alias: MakeAlias) -> None:
    """Celery and multiprocessing send exceptions that way."""
    alias = make_alias(POOL=ONE)
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_it_does_not_keep_who_had_them(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={**ONE, "trace": True})
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    assert out(alias) == 1  # its thread is gone; the next one to look takes it back
    assert connection_id(alias)
    assert [hold.thread for hold in error.holders] == ["worker"]


# --- why ----------------------------------------------------------------------------------------------------


def situation(
    *holds: Hold,
    waited: float = 10.0,
    opening: int = 0,
    error: Exception | None = None,
    options: PoolOptions = DEFAULTS,
) -> Situation:
    return Situation("default", options, waited, opening, 0, holds, error)


def hold(work: str | None, held: float, **more: Any) -> Hold:
    return Hold("T1", work, held, **more)


LONG, BRIEF = 60.0, 0.2
REFUSED = OperationalError(2003, "Can't connect")
CAUSES: dict[str, tuple[Situation, str]] = {
    "connects fail": (
        situation(hold("GET /a", LONG), opening=1, error=REFUSED),
        "sessions can't be opened (OperationalError)",
    ),
    "all hold, and it failed once": (situation(hold("GET /a", LONG), error=REFUSED), "GET /a keeps"),
    "all opening": (situation(hold("GET /a", BRIEF), opening=3), "the database is slow to open"),
    "some opening, and room for more": (
        situation(hold("GET /a", LONG, own=True), hold("GET /a", LONG), opening=1),
        "the database is slow to open",
    ),
    "some opening, and refused at once": (
        situation(hold("GET /a", BRIEF), hold("GET /a", BRIEF), opening=1, waited=0.0),
        "more work at once than connections",
    ),
    "all hold but one that is being opened": (
        situation(hold("GET /a", LONG), hold("GET /b", LONG), opening=1, options=PoolOptions(1, 2)),
        "none came back",
    ),
    "own": (
        situation(hold("GET /a", LONG, own=True), hold("GET /b", LONG)),
        "the waiting work has 1 of 2 itself (GET /a in thread T1)",
    ),
    "one kind": (
        situation(hold("GET /report/1/", LONG), hold("GET /report/22/", LONG)),
        "GET /report/*/ keeps what it borrows: none of 2 came back",
    ),
    "one kind of task": (
        situation(hold("task mail[5e0f-a]", LONG), hold("task mail[77]", LONG)),
        "task mail* keeps what it borrows: none of 2 came back",
    ),
    "one line": (
        situation(
            hold("GET /r", LONG, borrowed_at="r.py:1 in r"), hold("GET /r", LONG, borrowed_at="r.py:1 in r")
        ),
        "GET /r (borrowed at r.py:1 in r) keeps what it borrows",
    ),
    "several kinds": (
        situation(hold("GET /a", LONG), hold("GET /b", LONG), hold("GET /a", LONG)),
        "none came back while this one waited; their work takes longer than timeout, or does not give back: "
        "most are GET /a (2 of 3).",
    ),
    "half of them": (
        situation(hold("GET /a", LONG), hold("GET /b", BRIEF)),
        "1 of 2 did not come back while this one waited; that leaves too few for the rest. 1 of them: GET /a",
    ),
    "short ones": (
        situation(hold("GET /a", LONG), hold("GET /b", BRIEF), hold("GET /c", BRIEF)),
        "more work at once than connections: they come back, but not in time for each checkout. Raise",
    ),
    "short ones of one kind": (
        situation(hold("GET /a", BRIEF), hold("GET /a", BRIEF), hold("GET /c", BRIEF)),
        "not in time for each checkout; 2 of 3 are GET /a. Raise pool_size",
    ),
    "no wait at all": (situation(hold("GET /a", BRIEF), waited=0), "more work at once than connections"),
    "threads": (situation(hold(None, LONG)), "thread T* keeps what it borrows"),
    "nothing": (situation(), "timeout may be too short"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_likeliest_cause(name: str) -> None:
    given, expected = CAUSES[name]
    cause = likeliest_cause(given)
    assert expected in cause
    assert cause.endswith(".")
    assert "\n" not in cause


def test_who_waits_for_himself(make_alias: MakeAlias) -> None:
    """A function whose threads need more than there is."""
    alias = make_alias(POOL=ONE)
    caught: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        connection_id(alias)
        wrapper = connections.create_connection(alias)
        with pytest.raises(PoolTimeout) as info:
            wrapper.ensure_connection()
        caught.append(info.value.likeliest_cause)
        return HttpResponse()

    with site(view=view):
        wsgi().close()
    assert caught[0].startswith("the waiting work has 1 of 1 itself (GET /view in thread MainThread)")


# --- when the database fails --------------------------------------------------------------------------------


def test_the_last_failure_to_connect_is_the_cause(make_alias: MakeAlias) -> None:
    """A stub for a server: it slams the door once, and then says nothing."""
    threads = []
    with ExitStack() as stack:
        stub = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        alias = make_alias(POOL={**ONE, "outage_wait": 0}, PORT=str(stub.getsockname()[1]))
        threads.append(start(fail, alias))
        stub.accept()[0].close()
        threads[0].join(PATIENCE)
        threads.append(start(fail, alias))
        stack.enter_context(closing(stub.accept()[0]))
        error = wait_in_vain(alias)
    for thread in threads:
        thread.join(PATIENCE)
    assert isinstance(error.__cause__, Exception)
    assert error.__cause__.args[0] in (2013, 2002)
    assert error.__cause__.__traceback__ is None
    assert "sessions can't be opened (OperationalError)" in error.summary
    assert str(error).splitlines()[-1].startswith("Last failure to open a session: OperationalError: (20")
    assert (error.opening, error.out) == (1, 0)


def test_a_failure_that_is_over_is_no_cause(make_alias: MakeAlias, mariadb: MariaDB) -> None:
    alias = make_alias(POOL=ONE)
    password = connections[alias].settings_dict["PASSWORD"]
    connections[alias].settings_dict["PASSWORD"] = "wrong"
    with pytest.raises(OperationalError):
        connection_id(alias)
    assert pool_of(alias).connect_error
    connections[alias].settings_dict["PASSWORD"] = password
    with busy(alias, "worker"):
        error = wait_in_vain(alias)
    assert error.__cause__ is None
    assert "Last failure" not in str(error)


class Awkward(Exception):
    """Can't be made from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def test_what_is_remembered_of_an_error() -> None:
    """Not its frames, which may have somebody's request or half a connection."""
    try:
        raise OperationalError(2003, "no")
    except OperationalError as error:
        copy = remembered(error)
    assert (type(copy), copy.args, copy.__traceback__) == (OperationalError, (2003, "no"), None)
    assert str(remembered(Awkward("this", "that"))) == "Awkward: this and that"


def start(work: Callable[..., object], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    return thread


def fail(alias: str) -> None:
    with pytest.raises(OperationalError):
        connection_id(alias)


# --- where --------------------------------------------------------------------------------------------------


def test_whose_code_it_is() -> None:
    assert is_own(__file__)
    assert is_own("/srv/shop/views.py")
    for module in (threading, pytest, connections, pickle):
        assert not is_own(inspect.getfile(module if inspect.ismodule(module) else type(module)))
    assert not is_own(inspect.getfile(auto_close_db))
    assert not is_own("<frozen importlib._bootstrap>")
    assert not is_own("/usr/lib/python3/dist-packages/MySQLdb/cursors.py")


def test_a_stack_as_text() -> None:
    stack = stack_of(inspect.currentframe())
    text = text_of(stack).splitlines()
    assert text[-2].endswith("in test_a_stack_as_text")
    assert text[-1] == "    stack = stack_of(inspect.currentframe())"
    assert not any("pytest" in line for line in text)


def test_a_stack_of_nobodys() -> None:
    """A thread that is idle in a library is told by its innermost line."""
    asleep = threading.Event()
    thread = start(asleep.wait, PATIENCE)
    eventually("it waits", lambda: "wait" in (now(thread, fallback=True) or ""))
    assert now(thread) is None
    asleep.set()
    thread.join()
    assert line_in(()) is None
    assert text_of(()) == ""


def now(thread: threading.Thread, *, fallback: bool = False) -> str | None:
    frame = current_frames().get(thread.ident or 0)
    return line_in(stack_of(frame), fallback=fallback)


def test_a_deep_recursion_is_cut_off() -> None:
    def dive(depth: int) -> int:
        return dive(depth - 1) if depth else len(stack_of(inspect.currentframe()))

    assert dive(300) == 100


# --- a bad view ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("trace", [True, False])
def test_a_bad_view_is_named_by_whoever_waited_for_it(
    mariadb: MariaDB, name: str, tmp_path: Path, trace: bool
) -> None:
    """It borrows in a thread of its own, which goes on, and never gives back. Under gunicorn."""
    # Longer than what counts as short anyhow, so that it kept it while the other waited.
    pool = {"pool_size": 1, "max_overflow": 0, "timeout": 1.2, "trace": trace}
    database = {**mariadb.database(name), "ENGINE": "poollife.backends.mysql", "POOL": pool}
    with WebServer("gthread", tmp_path / "log", DATABASES={"default": database}) as server:
        assert server.get("/bad").status == 200
        answer = server.get("/why")
    text = answer.body.decode()
    assert answer.status == 503, text
    assert re.search(r"^No connection .* cause: GET /bad .*keeps what it borrows: none of 1 came", text)
    assert "GET /bad in thread bad_0 for " in text
    # Not imported: its settings are the web server's.
    views = ROOT / "tests/support/request_site/views.py"
    number = views.read_text().splitlines().index("def borrow_badly() -> None:") + 2
    line = f"borrowed at {views}:{number} in borrow_badly"
    assert (line in text) is trace, text


@pytest.fixture
def name(new_database: Callable[[], str]) -> str:
    return new_database()
