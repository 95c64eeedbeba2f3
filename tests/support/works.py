"""Every kind of work that returns its connections at its end, each as a function that runs a body.

A runner takes a body, runs it to its end in work of its kind, and returns the body's result or raises its
error. Runners of ``IN_OWN_THREAD`` run the body in another thread than their caller's. Each stands behind a
context manager, because an executor keeps its thread from body to body.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from asgiref.sync import sync_to_async
from django.core.signals import request_finished
from django.db import OperationalError, close_old_connections, connections
from django.http import HttpRequest, HttpResponse

from poollife import PooledThread, PooledThreadPoolExecutor
from poollife.asgi import PoolASGIMiddleware
from poollife.wsgi import PoolWSGIMiddleware
from tests.support.borrowing import (
    PATIENCE,
    Failure,
    TornDown,
    connection_id,
    insert,
    leave_a_transaction,
    leave_autocommit_off,
    leave_unread_rows,
    run,
)
from tests.support.forms import FORMS, KINDS, Body, by_name
from tests.support.handlers import Exchange, site, wsgi

Runner = Callable[[Body], Any]


class Outcome:
    """The result or the error of a body, where the work around it passes on neither."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._result: Any = None
        self.error: BaseException | None = None

    def call(self) -> None:
        """Run the body."""
        try:
            self._result = self._body()
        except BaseException as error:
            self.error = error
            raise

    def get(self) -> Any:
        """Return the body's result, or raise its error."""
        if self.error:
            raise self.error
        return self._result


# --- threads ------------------------------------------------------------------------------------------------


class WithRun(PooledThread):
    """A thread that overrides ``run()``, as most subclasses do."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    def run(self) -> None:
        self._body()


class Timer(PooledThread, threading.Timer):
    """``PooledThread`` together with another subclass of ``threading.Thread``."""


def in_thread(make: Callable[[Body], threading.Thread], body: Body) -> Any:
    """Run the body in this thread; its error must arrive at ``threading.excepthook``."""
    outcome, arrived = Outcome(body), []
    hook, threading.excepthook = threading.excepthook, lambda hooked: arrived.append(hooked.exc_value)
    try:
        run(make(outcome.call))
    finally:
        threading.excepthook = hook
    assert arrived == ([outcome.error] if outcome.error else [])
    return outcome.get()


def thread(body: Body) -> Any:
    return in_thread(lambda body: PooledThread(target=body), body)


def thread_with_arguments(body: Body) -> Any:
    return in_thread(
        lambda body: PooledThread(target=lambda run, *, key: run(), args=(body,), kwargs={"key": 1}), body
    )


def daemon_thread(body: Body) -> Any:
    return in_thread(lambda body: PooledThread(target=body, daemon=True, name="a daemon"), body)


def thread_that_overrides_run(body: Body) -> Any:
    return in_thread(WithRun, body)


def thread_with_run_on_the_instance(body: Body) -> Any:
    def make(body: Body) -> threading.Thread:
        thread = PooledThread()
        thread.run = body  # type: ignore[method-assign]
        return thread

    return in_thread(make, body)


def timer(body: Body) -> Any:
    return in_thread(lambda body: Timer(0, body), body)


@contextmanager
def executor(workers: int = 1) -> Iterator[Runner]:
    """Run bodies as jobs of one executor, whose threads live on."""
    with PooledThreadPoolExecutor(workers) as pooled:
        yield lambda body: pooled.submit(body).result(PATIENCE)


# --- requests -----------------------------------------------------------------------------------------------


@contextmanager
def without_djangos_closing() -> Iterator[None]:
    """Disconnect ``close_old_connections``: what goes back is the product's doing."""
    request_finished.disconnect(close_old_connections)
    try:
        yield
    finally:
        request_finished.connect(close_old_connections)


def wsgi_request(body: Body) -> Any:
    """Run the body in a view of a Django site under WSGI, with ``PoolMiddleware``."""
    outcome = Outcome(body)

    def view(request: HttpRequest) -> HttpResponse:
        outcome.call()
        return HttpResponse()

    with site(view=view), without_djangos_closing():
        response = wsgi()
        assert response.status_code == (500 if outcome.error else 200)
        response.close()
    return outcome.get()


def asgi_request(body: Body) -> Any:
    """Run the body in a sync view of a Django site under ASGI, with ``PoolMiddleware``."""
    outcome = Outcome(body)

    def view(request: HttpRequest) -> HttpResponse:
        outcome.call()
        return HttpResponse()

    async def main() -> None:
        exchange = Exchange()
        assert await exchange.head() == (500 if outcome.error else 200)
        await exchange.body()

    with site(view=view), without_djangos_closing():
        try:
            asyncio.run(main())
        except BaseException:
            if not outcome.error or isinstance(outcome.error, Exception):
                raise
    return outcome.get()


def wsgi_application(body: Body) -> Any:
    """Run the body in an application of its own behind ``PoolWSGIMiddleware``."""

    def application(environ: Any, start: Any) -> list[Any]:
        return [body()]

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    (result,) = PoolWSGIMiddleware(application)(environ, lambda *_: lambda data: None)
    return result


def asgi_application(body: Body) -> Any:
    """Run the body in an application of its own behind ``PoolASGIMiddleware``."""
    outcome = Outcome(body)

    async def application(*_: Any) -> None:
        await sync_to_async(outcome.call)()

    async def unused(*_: Any) -> Any:
        raise AssertionError("this application neither receives nor sends")

    try:
        asyncio.run(PoolASGIMiddleware(application)({"type": "http"}, unused, unused))
    except BaseException as error:
        if error is not outcome.error:
            raise
    return outcome.get()


# --- lists --------------------------------------------------------------------------------------------------

Work = Callable[[], AbstractContextManager[Runner]]


def _work(runner: Runner) -> Work:
    def make(*_: int) -> AbstractContextManager[Runner]:
        return nullcontext(runner)

    make.__name__ = runner.__name__
    return make


in_pooled_thread = _work(thread)
THREADS = [
    in_pooled_thread,
    _work(thread_with_arguments),
    _work(daemon_thread),
    _work(thread_that_overrides_run),
    _work(thread_with_run_on_the_instance),
    _work(timer),
]
#: ``PoolMiddleware`` leaves an open atomic block to the code around the request, such as a test's.
DJANGO_REQUESTS = [_work(wsgi_request), _work(asgi_request)]
APPLICATIONS = [_work(wsgi_application), _work(asgi_application)]

IN_OWN_THREAD = [*THREADS, executor, DJANGO_REQUESTS[1], APPLICATIONS[1]]
ALL = [*map(_work, FORMS), *THREADS, executor, *DJANGO_REQUESTS, *APPLICATIONS]
#: One of each kind.
ONE_IN_CALLERS_THREAD = [*map(_work, KINDS), DJANGO_REQUESTS[0], APPLICATIONS[0]]
ONE_IN_OWN_THREAD = [in_pooled_thread, executor, DJANGO_REQUESTS[1], APPLICATIONS[1]]
ONE_OF_EACH = [*ONE_IN_CALLERS_THREAD, *ONE_IN_OWN_THREAD]


def each_of(works: list[Any]) -> pytest.MarkDecorator:
    """Parametrise the fixture ``work`` of tests/invariants/inv2_return/conftest.py."""
    return pytest.mark.parametrize("work", works, ids=by_name, indirect=True)


# --- bodies and how they end --------------------------------------------------------------------------------


def fail(alias: str) -> None:
    connection_id(alias)
    raise Failure


def be_torn_down(alias: str) -> None:
    connection_id(alias)
    raise TornDown


def exit_(alias: str) -> None:
    connection_id(alias)
    raise SystemExit


def fail_in_a_query(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT no_such_column")


def fail_in_a_transaction(alias: str) -> None:
    leave_a_transaction(alias)
    raise Failure


def leave_two_transactions(alias: str) -> None:
    leave_a_transaction(alias)
    leave_a_transaction(alias)


def leave_a_failed_transaction(alias: str) -> None:
    leave_a_transaction(alias)
    connections[alias].set_rollback(True)


def borrow_with_a_copy(alias: str) -> None:
    """Borrow a second connection of the alias, as Django's own code does."""
    copy = connections[alias].copy()
    copy.ensure_connection()
    connection_id(alias)
    kept.append(copy)


kept: list[Any] = []
#: For each body: the error that its caller gets, the rows that other sessions see, the sessions thrown away.
ENDS: dict[Callable[[str], None], tuple[type[BaseException] | None, int, int]] = {
    insert: (None, 1, 0),
    fail: (Failure, 0, 0),
    be_torn_down: (TornDown, 0, 0),
    exit_: (SystemExit, 0, 0),
    fail_in_a_query: (OperationalError, 0, 0),
    fail_in_a_transaction: (Failure, 0, 0),
    leave_a_transaction: (None, 0, 0),
    leave_two_transactions: (None, 0, 0),
    leave_autocommit_off: (None, 0, 0),
    leave_a_failed_transaction: (None, 0, 0),
    leave_unread_rows: (None, 0, 1),
    borrow_with_a_copy: (None, 0, 0),
}
