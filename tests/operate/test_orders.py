"""Orders to all processes: ``pool_suspend``, ``pool_resume``, ``pool_drain`` and so on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import poollife
from poollife import auto_close_db, clock
from poollife.board import orders
from poollife.board.layout import ORDERS
from poollife.board.orders import Order
from poollife.board.page import page
from poollife.board.reader import read_board
from poollife.board.views import Damaged
from poollife.errors import PoolTimeout
from servers import MariaDB
from tests.conftest import MakeAlias
from tests.support.board_site import Site
from tests.support.borrowing import PATIENCE, connection_id
from tests.support.counting import Questions, pool_of
from tests.support.web_server import eventually

PROCESSES, THREADS = 4, 3
#: How often the board is looked at while they are suspended.
LOOKS = 200


@pytest.fixture
def alias(make_alias: MakeAlias) -> str:
    alias = make_alias(POOL={"pool_size": 3, "max_overflow": 0, "timeout": 30})
    ask(alias)
    return alias


@pytest.fixture
def mysql_site(mariadb: MariaDB, new_database: Callable[[], str], tmp_path: Path) -> Iterator[Site]:
    database = {**mariadb.database(new_database()), "ENGINE": "poollife.backends.mysql"}
    made = Site(tmp_path / "run", database)
    yield made
    made.end()


@auto_close_db
def ask(alias: str) -> int:
    return connection_id(alias)


def renewed_now(order: Order) -> Order:
    return orders.renewed(order, clock.monotonic())


def order(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


@contextmanager
def asking(alias: str) -> Iterator[list[int]]:
    """Ask in another thread, which ends with the block."""
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(ask(alias)))
    thread.start()
    yield answers
    thread.join(PATIENCE)
    assert answers


@contextmanager
def borrowing(alias: str) -> Iterator[int]:
    """Hold a connection in another thread for the time of the block."""
    ready, over = threading.Event(), threading.Event()
    sessions: list[int] = []

    @auto_close_db
    def borrow() -> None:
        sessions.append(connection_id(alias))
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT GET_LOCK('kept', 0)")  # keeps the session
            ready.set()
            over.wait(PATIENCE)
            cursor.execute("SELECT RELEASE_ALL_LOCKS()")

    thread = threading.Thread(target=borrow)
    thread.start()
    assert ready.wait(PATIENCE)
    yield sessions[0]
    over.set()
    thread.join(PATIENCE)


def test_checkouts_wait_until_they_are_resumed(alias: str) -> None:
    order("pool_suspend", alias)
    with asking(alias) as answers:
        eventually("it waits", lambda: pool_of(alias).waiting == 1)
        assert (pool_of(alias).suspended, answers) == (True, [])
        order("pool_resume", alias)
    assert not pool_of(alias).suspended


@pytest.mark.parametrize("command", ["pool_suspend", "pool_drain"])
def test_an_order_that_is_relied_on_and_reaches_no_process_is_an_error(tmp_path: Path, command: str) -> None:
    with (
        override_settings(POOLLIFE_RUN_DIR=str(tmp_path)),
        pytest.raises(CommandError, match="shows no process with such a pool"),
    ):
        order(command, "--all")


def test_the_number_of_orders_needs_no_memory_later(tmp_path: Path) -> None:
    """A look into a hole in a file would kill the process, where the memory has run out."""
    orders.number_in(tmp_path)
    assert (tmp_path / orders.NUMBER).stat().st_blocks > 0


def test_sizes_are_checked_together_with_those_that_were_ordered_before(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 2, "max_overflow": 0})
    ask(alias)
    try:
        order("pool_resize", alias, "--min-idle", "2")
        with pytest.raises(CommandError, match="min_idle"):
            order("pool_resize", alias, "--pool-size", "1")
        ask(alias)
        assert pool_of(alias).options.pool_size == 2
        order("pool_resize", alias, "--pool-size", "5")
        order("pool_resize", alias, "--min-idle", "4")
        ask(alias)
        assert (pool_of(alias).options.pool_size, pool_of(alias).options.min_idle) == (5, 4)
    finally:
        order("pool_resize", alias, "--reset")


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("obeyed", [False, True])
def test_an_order_that_comes_while_a_session_is_opened_is_for_that_session_too(
    alias: str, monkeypatch: pytest.MonkeyPatch, *, connected: bool, obeyed: bool
) -> None:
    """It comes ahead of the driver's ``connect()`` or after it, and another checkout may obey it first."""
    order("pool_renew", alias)
    opened: list[Any] = []

    def renew() -> None:
        order("pool_renew", alias)
        if obeyed:
            pool_of(alias).obey()

    wrapper: Any = type(connections[alias])
    open_connection = wrapper.open_connection

    def slowly(self: Any, params: Any) -> Any:
        first = not opened
        if first and not connected:
            renew()
        opened.append(open_connection(self, params))
        if first and connected:
            renew()
        return opened[-1]

    monkeypatch.setattr(wrapper, "open_connection", slowly)
    answer = ask(alias)
    first, second = opened
    assert (first.closed, answer) == (True, second.session)


def test_a_drain_does_not_wait_for_sessions_that_were_opened_after_it_began(
    alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:

        def late(*arguments: Any) -> Any:
            monkeypatch.undo()
            stack.enter_context(borrowing(alias))
            return read_board()

        monkeypatch.setattr("poollife.management.orders.read_board", late)
        order("pool_drain", alias, "--timeout", "5")


def test_a_suspension_ends_by_itself(alias: str) -> None:
    order("pool_suspend", alias, "--for", "0.3")
    with asking(alias):
        pass
    assert not pool_of(alias).suspended


@pytest.mark.parametrize("wrong", ["{", json.dumps({"default": 1})])
def test_a_suspension_ends_when_it_would_have_even_if_the_orders_can_not_be_read_any_more(
    alias: str, wrong: str
) -> None:
    order("pool_suspend", alias, "--for", "1")
    with asking(alias):
        eventually("it waits", lambda: pool_of(alias).waiting == 1)
        assert page.folder
        (page.folder / orders.NAME).write_text(wrong)
        orders._count(page.folder)
        eventually("it has looked", lambda: pool_of(alias).counters[ORDERS] == page.orders[0])
    assert not pool_of(alias).suspended
    order("pool_resume", alias)  # makes the file anew


def test_sizes_that_a_pool_can_not_have_do_not_end_a_suspension(alias: str) -> None:
    assert page.folder
    orders.give(page.folder, [alias], lambda order: orders.resized(order, {"core_size": 99}))
    order("pool_suspend", alias)
    with asking(alias):
        eventually("it waits", lambda: pool_of(alias).waiting == 1)
        eventually("it has looked", lambda: pool_of(alias).counters[ORDERS] == page.orders[0])
        pool_of(alias).obey()
        assert pool_of(alias).suspended
        order("pool_resume", alias)


def test_what_is_suspended_in_this_process_stays_so(alias: str) -> None:
    poollife.suspend_pool(alias)
    order("pool_suspend", alias)
    with asking(alias):
        eventually("it waits", lambda: pool_of(alias).waiting == 1)
        order("pool_resume", alias)
        eventually("it has obeyed", lambda: pool_of(alias).counters[ORDERS] == page.orders[0])
        assert pool_of(alias).suspended
        poollife.resume_pool(alias)


def test_idle_and_borrowed_sessions_are_replaced(alias: str) -> None:
    idle = ask(alias)
    with borrowing(alias) as borrowed:
        order("pool_renew", alias)
        assert ask(alias) not in (idle, borrowed)
    assert ask(alias) != borrowed
    assert pool_of(alias).meters.replaced == {"opened before the pool was renewed": 1}


def test_sessions_that_were_opened_later_stay(alias: str) -> None:
    order("pool_renew", alias)
    assert ask(alias) == ask(alias)
    assert pool_of(alias).opened == 2


def test_a_pool_that_begins_later_has_nothing_to_renew(make_alias: MakeAlias) -> None:
    alias = make_alias()
    order("pool_renew", alias)
    assert ask(alias) == ask(alias)
    assert pool_of(alias).opened == 1


def test_drain_waits_for_what_was_open_and_names_who_has_it(alias: str) -> None:
    with borrowing(alias):
        with pytest.raises(CommandError, match=rf"after 0\.2 s: {alias}: .*borrow.* for \d") as raised:
            order("pool_drain", alias, "--timeout", "0.2")
        ask(alias)  # with a session of its own
    assert "process" in str(raised.value)
    assert "No session" in order("pool_drain", alias)


def test_sizes(alias: str) -> None:
    order("pool_resize", alias, "--pool-size", "1")
    ask(alias)
    assert pool_of(alias).options.limit == 1
    order("pool_resize", alias, "--max-overflow", "4")
    ask(alias)
    assert pool_of(alias).options.limit == 5
    order("pool_resize", alias, "--reset")
    ask(alias)
    assert pool_of(alias).options.limit == 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pool_suspend"], "or say --all"),
        (["pool_suspend", "default", "--all"], "or say --all"),
        (["pool_suspend", "nowhere"], "has no 'nowhere'"),
        (["pool_suspend", "default", "--for", "-1"], "no number above 0"),
        (["pool_suspend", "default", "--for", "inf"], "no number above 0"),
        (["pool_resize", "{alias}"], "or say --reset"),
        (["pool_resize", "{alias}", "--reset", "--pool-size", "1"], "or say --reset"),
        (["pool_resize", "{alias}", "--pool-size", "0"], "pool_size"),
        (["pool_resize", "default", "--pool-size", "1"], "FairQueuePool"),
    ],
)
def test_what_can_not_be_ordered_is_refused(alias: str, arguments: list[str], error: str) -> None:
    before = page.orders[0]
    with pytest.raises(CommandError, match=error):
        order(*(each.format(alias=alias) for each in arguments))
    assert page.orders[0] == before


def test_a_pool_that_can_not_obey_says_so_and_works(
    make_alias: MakeAlias, caplog: pytest.LogCaptureFixture
) -> None:
    alias = make_alias(POOL=False)
    ask(alias)
    order("pool_suspend", alias)
    ask(alias)
    order("pool_resume", alias)
    assert "can't obey an order" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', "9" * 5_000, "[" * 100_000])
def test_whatever_is_in_the_file_checkouts_go_on(
    site: Site, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    program = site.start("query", 1)
    program.said()
    (site.folder / orders.NAME).write_text(content)
    with pytest.raises(Damaged):
        orders.order_for(site.folder, "default")
    (site.folder / orders.NUMBER).write_bytes(b"\xff" * 4096)
    other = site.start("query", 2)
    assert other.said()
    assert other.end() == 0
    # An order puts it right.
    assert "Ordered for default" in site.order("pool_renew", "default")
    assert orders.order_for(site.folder, "default").renewed > 0


TIMES = st.floats() | st.integers() | st.none() | st.text(max_size=2)


@given(
    kept=st.fixed_dictionaries(
        {"suspended_until": TIMES, "renewed": TIMES, "sizes": st.dictionaries(st.text(), TIMES) | TIMES}
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_order_suspends_for_ever_or_refuses_all_sessions(tmp_path: Path, kept: dict[str, Any]) -> None:
    orders.give(tmp_path, ["default"], lambda order: order)
    state = json.loads((tmp_path / orders.NAME).read_text())
    state["orders"]["default"] = kept
    (tmp_path / orders.NAME).write_text(json.dumps(state))
    try:
        order = orders.order_for(tmp_path, "default")
    except Damaged:
        return
    assert order.suspended_until <= clock.monotonic() + orders.LONGEST_SUSPENSION
    assert order.renewed <= clock.monotonic()


def test_orders_of_before_the_machine_started_are_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.give(tmp_path, ["default"], renewed_now)
    assert orders.order_for(tmp_path, "default").renewed > 0
    monkeypatch.setattr(orders, "_boot", lambda: "another")
    assert orders.order_for(tmp_path, "default") == Order()


def test_an_order_for_all_changes_those_for_some(tmp_path: Path) -> None:
    def order_of(alias: str) -> Order:
        return orders.order_for(tmp_path, alias)

    orders.give(tmp_path, ["one"], lambda order: orders.resized(order, {"pool_size": 1}))
    orders.give(tmp_path, [orders.ALL], renewed_now)
    assert (order_of("one").sizes, order_of("other").sizes) == ({"pool_size": 1}, {})
    assert order_of("one").renewed > 0
    assert order_of("other").renewed > 0
    before = order_of("other").renewed
    orders.give(tmp_path, ["other"], lambda order: orders.resized(order, {"pool_size": 2}))
    assert order_of("other") == Order(renewed=before, sizes={"pool_size": 2})


def test_a_process_that_begins_later_obeys(site: Site) -> None:
    site.start("query", 1).said()
    site.order("pool_resize", "default", "--pool-size", "7", "--max-overflow", "0")
    later = site.start("hold")
    later.said()
    (process,) = [each for each in site.read().processes if each.pid == later.pid]
    assert [pool.limit for pool in process.pools] == [7]


@pytest.mark.slow
@pytest.mark.servers
def test_no_request_fails_and_no_connection_is_used_while_all_processes_are_suspended(
    mysql_site: Site, mariadb: MariaDB
) -> None:
    site = mysql_site
    programs = [site.start("load", THREADS, pool={"timeout": 60}) for _ in range(PROCESSES)]
    for program in programs:
        program.said()
    site.order("pool_suspend", "--all", "--for", "60")
    assert "No session" in site.order("pool_drain", "--all")
    assert site.read().holders == []
    eventually("all wait", lambda: waiting(site) == PROCESSES * THREADS)
    eventually("no session is open", lambda: mariadb.sessions("poollife") == [])
    with Questions(mariadb) as questions:
        for _ in range(LOOKS):
            assert waiting(site) == PROCESSES * THREADS
    assert questions.count == 0
    site.order("pool_resume", "--all")
    eventually("none waits", lambda: waiting(site) == 0)
    done = [program.last_words() for program in programs]
    assert [each["failed"] for each in done] == [0] * PROCESSES
    assert sum(each["good"] for each in done) == site.read().totals["default"].counters["checkouts"]


def waiting(site: Site) -> int:
    return sum(pool.waiting for process in site.read().processes for pool in process.pools)


def test_a_suspension_by_an_operator_that_is_gone_ends_by_itself(site: Site) -> None:
    program = site.start("load", 2, pool={"timeout": 60})
    program.said()
    site.order("pool_suspend", "--all", "--for", "1")  # by a process that ends at once
    eventually("all wait", lambda: waiting(site) == 2)
    eventually("none waits", lambda: waiting(site) == 0)
    assert program.last_words()["failed"] == 0


def test_waiting_for_a_suspended_pool_has_an_end(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"timeout": 0.3})
    ask(alias)
    order("pool_suspend", alias)
    with pytest.raises(PoolTimeout, match="suspended"):
        ask(alias)
    order("pool_resume", alias)
