"""The process of one peer: ``benchmarks.bench`` sends it orders.

Each peer has a process of its own, because the peers differ in settings and imports.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import (
    DatabaseError,
    InterfaceError,
    close_old_connections,
    connection,
    connections,
    transaction,
)
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path

from benchmarks import forks
from benchmarks.dialects import DIALECTS
from benchmarks.items import DRAWN
from benchmarks.process import first_line, take_orders
from benchmarks.questions import ask, time_limit

SELECT = "SELECT n FROM log WHERE n = 1"
UPDATE = "UPDATE other SET n = n + 1"
#: Requests that may fail after all sessions were killed.
PATIENCE = 10


class Worker:
    """The peer; each public method is an order."""

    def __init__(self, peer: dict[str, Any]) -> None:
        self._persistent = peer["persistent"]
        self._dialect = DIALECTS[peer["dialect"]]
        self._view: Callable[[], Any] = lambda: None
        self._kept: Any = None
        settings.configure(
            DATABASES={"default": peer["entry"]},
            MIDDLEWARE=peer["middleware"],
            ROOT_URLCONF=(path("", self._respond),),
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="benchmarks",
            USE_TZ=True,
        )
        import django

        django.setup()
        self._handler = WSGIHandler()

    # --- orders -----------------------------------------------------------------------------------------

    def request(self, view: str, atomic: bool) -> Any:
        """Make a request.

        :param view: ``read``, ``write``, ``nested`` or ``nothing``.
        :param atomic: the value of ATOMIC_REQUESTS.
        """
        connections.settings["default"]["ATOMIC_REQUESTS"] = atomic
        views = {
            "read": self._read,
            "write": self._write,
            "nested": self._update_in_a_block,
            "nothing": lambda: None,
        }
        return self._request(views[view])

    def ask(self, sql: str) -> Any:
        """Make a request that sends a statement; return the answer, the error in a list, or "hangs".

        :param sql: the statement, or a key of ``DEEDS``.
        """
        return self._bounded(lambda: self._answer(sql))

    def ask_twice(self, first: str, then: str) -> Any:
        """Make a request that sends two statements; return the answer to the second."""
        return self._bounded(lambda: (self._answer(first), self._answer(then))[1])

    def renew(self) -> None:
        """Make requests until one succeeds with a new session, after all sessions were killed.

        :raises RuntimeError: none succeeds.
        """
        self._kept = None
        for _ in range(PATIENCE):
            if self.ask("SELECT 1") == "1":
                return
        raise RuntimeError("it does not recover from killed sessions")

    def forget(self) -> None:
        """Drop the cursor that the last deed has kept."""
        self._kept = None

    def cycles(self, number: int) -> tuple[float, float]:
        """Return the microseconds of a checkout and a checkin: on the clock, and of this process."""
        cycle = self._cycle
        gc.collect()
        clock, process = time.perf_counter(), time.process_time()
        for _ in range(number):
            cycle()
        clock, process = time.perf_counter() - clock, time.process_time() - process
        return clock / number * 1e6, process / number * 1e6

    def memory(self) -> tuple[int, int]:
        """Return the bytes of memory, and the number of objects that the collector tracks."""
        gc.collect()
        return resident(), len(gc.get_objects())

    def fair(self, seconds: float) -> dict[str, int]:
        """Return the turns of threads that borrow a session for one statement each time."""
        # It imports SQLAlchemy, which not each peer needs.
        from benchmarks.pressure import THREADS, crowd
        from benchmarks.ways import Django

        counts, given_up = crowd(Django(), THREADS, "SELECT 1", seconds)
        return {"least": min(counts), "most": max(counts), "given_up": given_up}

    def last_ids(self, threads: int, number: int) -> dict[str, Any]:
        """Return how many answers were right, wrong or refused to a question for the key drawn last.

        Each job of an executor inserts a row, asks for its key, and then does what Django documents for
        threads without requests: it calls ``close_old_connections()``.

        :param threads: the threads of the executor.
        :param number: the number of jobs.
        """
        with ThreadPoolExecutor(threads) as executor:
            answers = list(executor.map(self._last_id, range(number)))
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT id, tag FROM {DRAWN}")
            tags = dict(cursor.fetchall())
        verdicts = Counter(
            "refused" if isinstance(answer, str) else "right" if tags.get(answer) == tag else "wrong"
            for tag, answer in answers
        )
        errors = Counter(answer for _, answer in answers if isinstance(answer, str))
        most = errors.most_common(1)
        return {**{key: verdicts[key] for key in ("right", "wrong", "refused")}, "error": most and most[0][0]}

    def fork(self, state: str, deed: str) -> str:
        """Return what becomes of this process and of a child. Arguments as for ``forks.verdict()``."""
        return forks.verdict(self._dialect, self.ask, state, deed)

    # --- the work of the orders -------------------------------------------------------------------------

    def _cycle(self) -> None:
        connection.ensure_connection()
        if self._persistent:
            connection.close_if_unusable_or_obsolete()
        else:
            connection.close()

    def _request(self, view: Callable[[], Any]) -> Any:
        """Do what a WSGI server does for one request, and return the result of the view."""
        result = []
        self._view = lambda: result.append(view())
        environ = RequestFactory().get("/").environ
        response = self._handler(environ, lambda status, headers, exc_info=None: lambda data: None)
        b"".join(response)
        response.close()
        return result[0]

    def _bounded(self, view: Callable[[], Any]) -> Any:
        """Make a request that may fail or hang, at its end, too."""
        try:
            with time_limit():
                return self._request(view)
        except TimeoutError:
            return "hangs"
        except Exception as error:  # of the database, the driver, or a pool
            return [first_line(error)]

    def _respond(self, request: HttpRequest) -> HttpResponse:
        self._view()
        return HttpResponse("done")

    def _read(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(SELECT)
            cursor.fetchall()

    def _write(self) -> None:
        self._read()
        self._update()

    def _update(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(UPDATE)

    def _update_in_a_block(self) -> None:
        with transaction.atomic():
            self._update()

    def _last_id(self, job: int) -> tuple[str, Any]:
        """Return what a job has inserted, and the key that it is told, or the error's first line."""
        tag = f"{os.getpid()} {job}"
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO {DRAWN} (tag) VALUES (%s)", [tag])
            with connection.cursor() as cursor:
                cursor.execute(self._dialect.last_id)
                return tag, cursor.fetchone()[0]
        except Exception as error:  # drivers and pools have different errors
            return tag, first_line(error)
        finally:
            close_old_connections()

    def _answer(self, sql: str) -> Any:
        try:
            return DEEDS[sql](self) if sql in DEEDS else ask(sql)
        except InterfaceError:
            # poollife refuses a question whose answer depends on another borrower of the session.
            return ["refused"]
        except TimeoutError:
            return "hangs"
        except Exception as error:  # of the database, the driver, or a pool
            number = getattr(error.__cause__, self._dialect.error_number, None)
            return [f"error {number or first_line(error)}"]

    def _read_half(self) -> None:
        connection.ensure_connection()
        self._kept = self._dialect.read_half(connection.connection)

    def _set_row_factory(self) -> Any:
        from psycopg.rows import dict_row

        connection.ensure_connection()
        driver: Any = connection.connection
        # A wrapper of a pool would keep it for itself.
        getattr(driver, "driver_connection", driver).row_factory = dict_row

    def _read_half_and_drop(self) -> None:
        self._read_half()
        self._kept = None

    def _keep_cursor(self) -> None:
        ask("DELETE FROM other WHERE n >= 666")
        self._kept = connection.cursor()
        self._kept.execute("SELECT 1")
        self._kept.fetchall()

    def _commit_by_kept_cursor(self) -> Any:
        """Return the number of rows that were rolled back and are there."""
        if self._kept is None:
            return "0"
        try:
            with transaction.atomic():
                ask("INSERT INTO other VALUES (666)")
                try:
                    self._kept.execute("COMMIT")
                except Exception as error:  # drivers have different errors for this refusal
                    print("the stale cursor was refused:", error)
                transaction.set_rollback(True)
        except DatabaseError as error:
            print("the transaction failed:", error)
        return ask("SELECT COUNT(*) FROM other WHERE n >= 666")


DEEDS: dict[str, Callable[[Worker], Any]] = {
    "set_row_factory": Worker._set_row_factory,
    "read_half": Worker._read_half,
    "read_half_and_drop": Worker._read_half_and_drop,
    "keep_cursor": Worker._keep_cursor,
    "commit_by_kept_cursor": Worker._commit_by_kept_cursor,
}


class BareWorker(Worker):
    """SQLAlchemy's pool without Django, which sends nothing to the server."""

    def __init__(self, peer: dict[str, Any]) -> None:
        from sqlalchemy.pool import QueuePool

        connect = DIALECTS[peer["dialect"]].connect
        self._pool = QueuePool(lambda: connect(peer["entry"]), reset_on_return=None)

    def _cycle(self) -> None:
        self._pool.connect().close()


def resident() -> int:
    """Return the bytes of memory of this process."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux: the most that this process has had so far
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def make(peer: dict[str, Any]) -> Worker:
    """Return the worker for a peer; a peer without an ENGINE has no Django."""
    return Worker(peer) if peer["entry"]["ENGINE"] else BareWorker(peer)


if __name__ == "__main__":
    take_orders(make)
