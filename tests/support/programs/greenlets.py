"""Greenlets that borrow, in a process that gevent has patched before anything else was imported."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import nullcontext  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import pymysql  # noqa: E402
from django.db import OperationalError, connections, transaction  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402

from poollife.conf import DEFAULTS  # noqa: E402
from poollife.errors import PoolTimeout  # noqa: E402
from poollife.pools.pool import LeasePool  # noqa: E402
from poollife.pools.registry import registry  # noqa: E402
from poollife.process.atfork import at_fork  # noqa: E402
from tests.support.counting import pool_of  # noqa: E402
from tests.support.programs import children, sockets  # noqa: E402
from tests.support.programs.databases import ask, hold, session, session_of_statement, set_up  # noqa: E402

CASES: dict[str, Callable[..., Any]] = {}
#: Seconds after which something has not happened.
PATIENCE = 30
#: A question that its server takes its time over.
SLOWLY = "SELECT %s + SLEEP(%s)"
#: Seconds that are over after each kill, however busy the machine is.
LONG = 10


def case(function: Callable[..., Any]) -> Callable[..., Any]:
    CASES[function.__name__] = function
    return function


class Observer:
    """A session beside the pools, of another user: what is under test can't keep it from asking."""

    # In this database: a test before this one may have left a statement behind that still runs.
    OTHERS = "FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"

    def __init__(self, server: dict[str, Any]) -> None:
        self._connection = pymysql.connect(**server, autocommit=True, ssl_disabled=True)

    def ask(self, sql: str, *parameters: Any) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return [row[0] for row in cursor.fetchall()]

    def running(self) -> list[str]:
        """The statements that the server is at."""
        return self.ask(f"SELECT INFO {self.OTHERS} AND COMMAND = 'Query' AND INFO LIKE 'SELECT%%'")

    def sessions(self) -> int:
        return len(self.ask(f"SELECT ID {self.OTHERS}"))


def pool() -> LeasePool:
    return pool_of("default")


def until(happened: Callable[[], Any]) -> bool:
    """Wait for it, bounded; whether it has happened."""
    with gevent.Timeout(PATIENCE, False):
        while not happened():
            gevent.sleep(0.005)
    return bool(happened())


def all_back() -> bool:
    """Whether nothing is out, once it was looked for leases that were reported as lost."""
    pool().reclaim(thoroughly=False)
    return pool().out == 0


def in_greenlet(work: Callable[..., Any], *arguments: Any) -> Any:
    return gevent.spawn(work, *arguments).get()


def kill_in_query(number: int, seconds: float) -> None:
    """The current greenlet is killed as soon as it waits for its answer: nothing else makes it wait."""
    connections["default"].ensure_connection()
    gevent.spawn(gevent.getcurrent().kill, block=False)
    ask(SLOWLY, number, seconds)


# --- waiting for the server --------------------------------------------------------------------------------


@case
def overlap(observer: Observer, count: int, in_block: bool = False) -> dict[str, Any]:
    """Each asks for a row that somebody has locked until all of them were seen to wait for it."""

    def ask_for(number: int) -> Any:
        with transaction.atomic() if in_block else nullcontext():
            return ask(sql, number)

    observer.ask("BEGIN")
    observer.ask("SELECT n FROM gate FOR UPDATE")
    sql = "SELECT n + %s FROM gate LOCK IN SHARE MODE"
    askers = [gevent.spawn(ask_for, number) for number in range(count)]
    most = 0
    while most < count and not all(asker.dead for asker in askers):
        most = max(most, len(observer.running()))
        gevent.sleep(0.005)
    observer.ask("ROLLBACK")
    gevent.joinall(askers)
    return {"together": most, "answers": [asker.value for asker in askers]}


@case
def round_trips(observer: Observer) -> dict[str, Any]:
    """What Django sends beside statements."""
    wrapper = connections["default"]
    wrapper.ensure_connection()
    return {
        "class": type(wrapper.connection).__name__,
        "others ran": {
            name: turns_during(getattr(wrapper.connection, name)) > 0
            for name in ("commit", "rollback", "ping")
        },
        "others ran while the pool asked": turns_during(lambda: wrapper.connection.answers(5)) > 0,
    }


def turns_during(wait: Callable[[], object]) -> int:
    """How often others ran meanwhile."""
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    counter = gevent.spawn(count)
    wait()
    counter.kill()
    return turns


@case
def in_hub(observer: Observer) -> dict[str, Any]:
    """What the hub itself calls can't wait for the hub."""
    answers: list[Any] = []
    hold()
    driver = connections["default"].connection
    gevent.get_hub().loop.run_callback(lambda: answers.append(ask("SELECT 1")))
    gevent.get_hub().loop.run_callback(lambda: answers.append(driver.answers(5)))
    until(lambda: len(answers) == 2)
    # To a question that never arrives.
    driver._send_query = lambda query: None
    gevent.get_hub().loop.run_callback(lambda: answers.append(driver.answers(0.5)))
    until(lambda: len(answers) == 3)
    return {"answers": answers}


@case
def read_timeout(observer: Observer) -> dict[str, Any]:
    """The driver's option bounds the waiting."""
    try:
        ask(SLOWLY, 1, 20)
    except Exception as error:
        connections["default"].close()
        return {"error": type(error).__name__, "code": error.args[0], "idle": pool().idle, "out": pool().out}
    return {}


# --- what ends ---------------------------------------------------------------------------------------------


@case
def killed(observer: Observer) -> dict[str, Any]:
    """Its answer is in the socket still: nobody may read it."""
    before = in_greenlet(session)
    gc.disable()
    victim = gevent.spawn(kill_in_query, 111, 0.2)
    victim.join()
    after = ask("SELECT 222"), session()
    connections["default"].close()
    return {
        "killed": isinstance(victim.value, gevent.GreenletExit),
        "next answer": after[0],
        "replaced": after[1] != before,
        "opened": pool().opened,
        "out": pool().out,
    }


@case
def timed_out(observer: Observer) -> dict[str, Any]:
    """By gevent's ``Timeout``, which the greenlet outlives: it may go on, but not with that connection."""
    before = session()
    try:
        with gevent.Timeout(0.1):
            ask(SLOWLY, 111, 5)
    except gevent.Timeout:
        connections["default"].close()
    return {"next answer": ask("SELECT 222"), "replaced": session() != before}


@case
def timed_out_in_a_block(observer: Observer) -> dict[str, Any]:
    """The block can't go on, and what comes after it can."""
    report: dict[str, Any] = {}

    def transact() -> None:
        with transaction.atomic():
            try:
                with gevent.Timeout(0.1):
                    ask(SLOWLY, 111, 5)
            except gevent.Timeout:
                ask("SELECT 222")

    try:
        transact()
    except Exception as error:
        report["error"] = [type(error).__name__, str(error)]
    report["next answer"] = ask("SELECT 333")
    connections["default"].close()
    return {**report, "out": pool().out}


@case
def ends(observer: Observer) -> dict[str, Any]:
    """Nobody closes anything, and the cycle collector is off: each kind of greenlet, and of end."""
    gc.collect()
    gc.disable()
    kept: list[Any] = []

    def use() -> None:
        kept.append(connections["default"])
        hold()

    def fail() -> None:
        use()
        raise gevent.GreenletExit

    def leave_block_open() -> None:
        use()
        transaction.atomic().__enter__()

    def thread(work: Callable[[], None]) -> None:
        threading.Thread(target=work).start()

    def raw(work: Callable[[], None]) -> None:
        def swallow() -> None:
            try:
                work()
            except gevent.GreenletExit:
                pass

        gevent.spawn_raw(swallow)

    left: dict[str, bool] = {}
    for how, start in {"spawn": gevent.spawn, "thread": thread, "raw": raw}.items():
        for work in (use, fail, leave_block_open):
            if how == "thread" and work is fail:
                continue
            start(work)
            until(lambda: len(kept) == len(left) + 1)
            left[f"{how} {work.__name__}"] = until(all_back)
    return left


@case
def at_rest(observer: Observer, greenlets: int) -> dict[str, Any]:
    """So many that live on, with three questions each: nobody looks for what was lost."""
    answers: list[int] = []
    enough = gevent.event.Event()

    def live_on() -> None:
        answers.extend(session_of_statement() for _ in range(3))
        enough.wait(PATIENCE)

    living = [gevent.spawn(live_on) for _ in range(greenlets)]
    until(lambda: len(answers) == 3 * greenlets)
    out = pool().out
    enough.set()
    gevent.joinall(living)
    return {
        "out": out,
        "sessions": len(set(answers)),
        "opened": pool().opened,
        "checkouts": pool().checkouts,
    }


@case
def held(observer: Observer) -> dict[str, Any]:
    """What a greenlet that lives on keeps, and for how long."""

    def with_cursor() -> Iterator[None]:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            ask("SELECT 2")
            yield

    def in_transaction() -> Iterator[None]:
        with transaction.atomic():
            ask("SELECT 1")
            yield

    def by_hand() -> Iterator[None]:
        hold()
        ask("SELECT 1")
        yield

    return {way.__name__: out_while(way) for way in (with_cursor, in_transaction, by_hand)}


def out_while(way: Callable[[], Iterator[None]]) -> list[int]:
    """How many are out while a greenlet has something open, after that, and after its end."""
    step = gevent.event.Event()
    out: list[int] = []

    def live_on() -> None:
        out.extend(pool().out for _ in way())
        out.append(pool().out)
        step.wait(PATIENCE)

    living = gevent.spawn(live_on)
    until(lambda: len(out) == 2)
    step.set()
    living.join()
    until(all_back)
    return [*out, pool().out]


@case
def waiters(observer: Observer) -> dict[str, Any]:
    """One of them is killed in the queue."""
    served: list[Any] = []

    def use(number: int) -> None:
        hold()
        served.append(number)
        gevent.sleep(0.01)
        connections["default"].close()

    hold()
    greenlets = [gevent.spawn(use, number) for number in range(10)]
    gevent.sleep(0.05)
    greenlets[3].kill()
    connections["default"].close()
    gevent.joinall(greenlets)
    return {"served": served, "opened": pool().opened, "out": pool().out}


@case
def in_vain(observer: Observer) -> dict[str, Any]:
    """The error names the greenlets that have something."""
    hold()

    def wait() -> str:
        try:
            ask("SELECT 1")
        except PoolTimeout as error:
            return str(error)
        return ""

    message = in_greenlet(wait)
    connections["default"].close()
    return {"message": message}


@case
def unused(observer: Observer) -> dict[str, Any]:
    """A pool is left alone: with a short ``max_pool_idle`` it is closed, and nothing waits for that."""
    session()
    connections["default"].close()
    if pool().options.max_pool_idle == DEFAULTS.max_pool_idle:
        # It ends when no greenlet or timer is left to wait for.
        return {"sweepers": sweepers(), "waited for all": gevent.wait(timeout=PATIENCE)}
    return {"closed": until(lambda: not observer.sessions()), "pools": len(registry.pools())}


@case
def outage(observer: Observer, greenlets: int) -> dict[str, Any]:
    """Greenlets that wait for a server that is away let others run, and so does the thread that finds it."""
    logging.getLogger("poollife").addHandler(logging.NullHandler())
    driver: Any = connections["default"].Database  # type: ignore[attr-defined]  # the stubs leave it out
    connect, away = driver.connect, True

    def refused_while_away(*arguments: Any, **parameters: Any) -> Any:
        if away:
            raise driver.OperationalError(2003, "refused")
        return connect(*arguments, **parameters)

    driver.connect = refused_while_away
    waiting = [gevent.spawn(ask, "SELECT 1") for _ in range(greenlets)]
    down = until(lambda: pool()._outage.error is not None)
    turns = turns_during(lambda: gevent.sleep(0.5))
    away = False
    gevent.joinall(waiting, PATIENCE)
    return {
        "down": down,
        "others ran": turns > 10,
        "answers": [asker.value for asker in waiting],
        "out": pool().out,
        "error": pool()._outage.error,
    }


@case
def long_outage(observer: Observer) -> dict[str, Any]:
    """With ``outage_wait`` 0: the thread that finds the server is a greenlet, too."""
    logging.getLogger("poollife").addHandler(logging.NullHandler())
    driver: Any = connections["default"].Database  # type: ignore[attr-defined]  # the stubs leave it out
    connect, refused = driver.connect, 0

    def refused_once(*arguments: Any, **parameters: Any) -> Any:
        driver.connect = connect
        raise driver.OperationalError(2003, "refused")

    driver.connect = refused_once
    try:
        ask("SELECT 1")
    except OperationalError:
        refused += 1
    found = until(lambda: pool()._outage.error is None)
    return {"refused": refused, "found": found, "idle": pool().idle, "answer": ask("SELECT 1")}


@case
def forking(observer: Observer) -> dict[str, Any]:
    """A greenlet forks while another one is ready to run, and its child begins a pool of its own."""
    turns = 0

    def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    def work() -> dict[str, Any]:
        before = turns
        return {"answer": ask("SELECT 1"), "others ran": turns - before, "pools": len(registry.pools())}

    def fork() -> dict[str, Any]:
        return children.fork(work, lambda: os._exit(0)).finish()

    session()
    connections["default"].close()
    other = gevent.spawn(take_turns)
    report: dict[str, Any] = in_greenlet(fork)
    other.kill()
    return report


@case
def forking_at_once(observer: Observer, greenlets: int) -> dict[str, Any]:
    """Several greenlets fork, and each of these forks stops the sweeper and starts it again."""
    session()
    connections["default"].close()
    witness = Witness()
    at_fork.join(witness)

    def fork() -> Any:
        return children.fork(dict, lambda: os._exit(0)).finish()["status"]

    statuses = [each.get() for each in [gevent.spawn(fork) for _ in range(greenlets)]]
    return {"statuses": statuses, "at the forks": witness.sweepers, "after that": sweepers()}


class Witness:
    """Counts the sweepers at each fork, when whoever takes part in it is ready."""

    def __init__(self) -> None:
        self.sweepers: list[int] = []

    def settle(self) -> None:
        """Nothing to wait for."""

    def strong_references(self) -> None:
        self.sweepers.append(sweepers())

    def abandon(self, held: None) -> None:
        """Nothing to give up."""


def sweepers() -> int:
    return sum("sweeper" in thread.name for thread in threading.enumerate())


@case
def storm(observer: Observer, greenlets: int, every: int) -> dict[str, Any]:
    """So many greenlets with a question each, every so-manyth of which is killed in mid-query."""
    wrong: list[Any] = []
    failed: list[str] = []
    alive = 0
    sockets_held: list[int] = []
    at_once: list[int] = []
    entry = connections["default"].settings_dict

    def question(number: int) -> None:
        nonlocal alive
        try:
            if number % every == 0:
                kill_in_query(number, LONG)
                failed.append(f"{number} lives")
            elif number % 3:
                check(number, ask("SELECT %s", number))
            else:
                with transaction.atomic():
                    check(number, ask(SLOWLY, number, 0.002))
                    check(number, ask("SELECT %s", number))
            connections.close_all()
        except Exception as error:
            failed.append(repr(error))
        finally:
            alive -= 1

    def check(number: int, answer: Any) -> None:
        if answer != number:
            wrong.append((number, answer))

    def look() -> None:
        while alive:
            # What those left behind who were killed runs on, without anybody's waiting for it.
            at_once.append(sum(f"SLEEP({LONG})" not in statement for statement in observer.running()))
            gevent.sleep(0.005)

    def opened(**_: Any) -> None:
        sockets_held.append(len(sockets.to_server(entry)))

    connection_created.connect(opened)
    alive = greenlets
    askers = [gevent.spawn(question, number) for number in range(greenlets)]
    looker = gevent.spawn(look)
    gevent.joinall([*askers, looker])
    until(all_back)
    return {
        "killed": sum(isinstance(asker.value, gevent.GreenletExit) for asker in askers),
        "wrong": wrong,
        "failed": failed,
        "looks": len(at_once),
        "most sockets": max(sockets_held),
        "most at once": max(at_once),
        "out": pool().out,
        "sessions are the idle ones": until(lambda: observer.sessions() == pool().idle),
        "opened": pool().opened,
    }


def main() -> None:
    name, server, entry, *arguments = map(json.loads, sys.argv[1:])
    set_up({"default": entry})
    print(json.dumps(CASES[name](Observer(server), *arguments)))
    # Greenlets of gevent's may wait still: nobody does for them.
    connections.close_all()


if __name__ == "__main__":
    main()
