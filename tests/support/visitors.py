"""Requests from several threads, one query each, and what became of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from django.db import connections
from django.http import HttpRequest, HttpResponse

from servers import PrivateServer
from tests.support.handlers import site, wsgi
from tests.support.web_server import eventually

THREADS = 4
#: A session for each thread.
POOL = {"pool_size": THREADS, "max_overflow": 0, "timeout": 30}


def number_of(connection: Any) -> int:
    """Return the number that the server gave a session. Sends nothing."""
    is_mysql = hasattr(connection, "thread_id")
    return int(connection.thread_id() if is_mysql else connection.info.backend_pid)


class Request(NamedTuple):
    """What became of one."""

    #: None: it got none.
    session: int | None
    #: When it began, on the monotonic clock.
    began: float
    error: Exception | None


class Visitors:
    """Requests with one query each, from threads of their own, and what became of them."""

    def __init__(self, alias: str, sql: str = "SELECT 1") -> None:
        self.alias = alias
        self.sql = sql
        self.requests: list[Request] = []

    def view(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        connection = connections[self.alias]
        session = error = None
        try:
            connection.ensure_connection()
            session = number_of(connection.connection)
            with connection.cursor() as cursor:
                cursor.execute(self.sql)
                if cursor.description:
                    cursor.fetchall()
        except Exception as caught:
            error = caught
        self.requests.append(Request(session, began, error))
        return HttpResponse(status=500 if error else 200)

    def fill(self) -> None:
        """Have the pool open all that it may have."""
        barrier = threading.Barrier(THREADS)

        def borrow() -> None:
            connections[self.alias].ensure_connection()
            barrier.wait(30)
            connections[self.alias].close()

        self._in_threads(borrow)

    def come(self, number: int, threads: int = THREADS) -> None:
        """So many requests, to a site that has this view alone: Django's settings have one site at a time."""
        with site(view=self.view):
            self.ask("/view", number, threads)

    def ask(self, path: str, number: int, threads: int = THREADS) -> None:
        """So many requests, to a site that has the view at this path."""

        def visit() -> None:
            for _ in range(number // threads):
                response = wsgi(path)
                b"".join(response)
                response.close()

        self._in_threads(visit, threads)

    @staticmethod
    def _in_threads(work: Callable[[], object], threads: int = THREADS) -> None:
        with ThreadPoolExecutor(threads) as executor:
            for done in [executor.submit(work) for _ in range(threads)]:
                done.result()

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.error]


def sessions(server: PrivateServer, alias: str) -> set[int]:
    """Return the numbers of the sessions that the server has in the database of an alias."""
    name = connections[alias].settings_dict["NAME"]
    return {session.id for session in server.sessions() if session.db == name}


def kill(server: PrivateServer, alias: str) -> None:
    """End these sessions."""
    for session in sessions(server, alias):
        server.kill(session)


def are_gone(server: PrivateServer, alias: str) -> None:
    """Wait until the server has ended all of them."""
    eventually("the server has ended them", lambda: not sessions(server, alias))
