"""The part ``cpu``: the CPU that a request needs with stock Django and with poollife, in one process.

``benchmarks.bench`` starts it as a process. Each contender has threads of its own, because Django's
connections belong to a thread: so a request of one contender never checks a connection of another.
"""

from __future__ import annotations

import gc
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import override_settings

from benchmarks.process import take_orders

THREADS = 8
#: Requests of each thread before the first round.
WARM_UP = 20

Work = Callable[[], object]


class Contender(NamedTuple):
    """A way to give Django its connections."""

    #: The name, which is also the alias.
    name: str
    #: The keys of the entry in ``DATABASES``, without the server, database, user and password.
    entry: dict[str, Any]
    middleware: list[str]


def contenders(database: str) -> tuple[Contender, ...]:
    """Return the contenders. The first is the one that the others are compared with.

    :param database: the last part of the ENGINEs.
    """
    pool = {"pool_size": THREADS, "max_overflow": 0}
    return (
        Contender("stock", {"ENGINE": f"django.db.backends.{database}", "CONN_MAX_AGE": None}, []),
        Contender(
            "poollife",
            {"ENGINE": f"poollife.backends.{database}", "POOL": pool},
            ["poollife.middleware.PoolMiddleware"],
        ),
    )


class Kind(NamedTuple):
    """A kind of work to measure."""

    #: The view that the requests ask for; None: ``SELECT 1`` outside of any request.
    view: str | None
    threads: int = 1


KINDS = {
    "a request with an ORM get": Kind("orm_get"),
    "a request with an ORM get, eight threads": Kind("orm_get", THREADS),
    "a request with SELECT 1": Kind("select_1"),
    "a request with a SELECT of 1.9 kB": Kind("long_select"),
    "SELECT 1 outside of any request": Kind(None),
}


class Crew:
    """Threads that live as long as the crew, and keep their connections between two rounds."""

    def __init__(self, number: int) -> None:
        """Start the threads."""
        self._results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._jobs = [queue.SimpleQueue[tuple[Work, int] | None]() for _ in range(number)]
        for jobs in self._jobs:
            threading.Thread(target=self._obey, args=(jobs,)).start()

    def run(self, work: Work, times: int, threads: int) -> None:
        """Have the first threads of the crew do some work, and wait for all of them.

        :param work: the function to call.
        :param times: how often each thread calls it.
        :param threads: how many threads of the crew call it.
        :raises BaseException: the first error of a thread.
        """
        for jobs in self._jobs[:threads]:
            jobs.put((work, times))
        for error in [self._results.get() for _ in range(threads)]:
            if error:
                raise error

    def end(self) -> None:
        """Have each thread close its connections and end."""
        for jobs in self._jobs:
            jobs.put(None)

    def _obey(self, jobs: queue.SimpleQueue[tuple[Work, int] | None]) -> None:
        while job := jobs.get():
            work, times = job
            error = None
            try:
                for _ in range(times):
                    work()
            except BaseException as raised:
                error = raised
            self._results.put(error)
        connections.close_all()


class Cpu:
    """The process: each public method is an order."""

    def __init__(self, beginning: dict[str, Any]) -> None:
        """Set Django up.

        :param beginning: the last part of the ENGINEs (``database``), and the entry of ``DATABASES`` without
            an ENGINE (``entry``).
        """
        self._contenders = contenders(beginning["database"])
        entries = {each.name: {**beginning["entry"], **each.entry} for each in self._contenders}
        settings.configure(
            DATABASES={"default": {}, **entries},
            ROOT_URLCONF="benchmarks.views",
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="benchmarks",
            USE_TZ=True,
        )
        import django

        django.setup()
        self._handlers = {each.name: handler(each.middleware) for each in self._contenders}

    def measure(self, rounds: int, requests: int) -> dict[str, dict[str, list[float]]]:
        """Return the microseconds of CPU of one request by kind and contender, a figure for each round.

        :param rounds: how often each contender has its turn at each kind.
        :param requests: requests of each thread in one round.
        """
        crews = {each.name: Crew(THREADS) for each in self._contenders}
        try:
            self._turns(crews, 1, WARM_UP)
            gc.collect()
            # The collector then has few objects to check between two rounds.
            gc.freeze()
            return self._turns(crews, rounds, requests)
        finally:
            for crew in crews.values():
                crew.end()

    def _turns(self, crews: dict[str, Crew], rounds: int, requests: int) -> dict[str, dict[str, list[float]]]:
        found: dict[str, dict[str, list[float]]] = {
            name: {each.name: [] for each in self._contenders} for name in KINDS
        }
        orders: Sequence[Any] = list(itertools.permutations(self._contenders))
        for number in range(rounds):
            for name, kind in KINDS.items():
                for contender in orders[number % len(orders)]:
                    work = self._work(kind, contender)
                    cost = cpu_of(crews[contender.name], work, requests, kind.threads)
                    found[name][contender.name].append(cost)
        return found

    def _work(self, kind: Kind, contender: Contender) -> Work:
        if kind.view is None:
            from benchmarks.views import query

            return lambda: query(contender.name)
        return request(self._handlers[contender.name], f"/{contender.name}/{kind.view}")


def handler(middleware: list[str]) -> WSGIHandler:
    """Return a handler with this middleware."""
    with override_settings(MIDDLEWARE=middleware):
        return WSGIHandler()


def request(handler: WSGIHandler, path: str) -> Work:
    """Return a function that does for one request what a WSGI server does."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }

    def work() -> None:
        response: Any = handler({**environ, "wsgi.input": BytesIO()}, start_response)
        b"".join(response)
        response.close()

    return work


def start_response(status: str, headers: object, exc_info: object = None) -> Any:
    """Take the head of a response.

    :raises RuntimeError: the request has failed.
    """
    if not status.startswith("200"):
        raise RuntimeError(f"a request was answered with {status}")


def cpu_of(crew: Crew, work: Work, times: int, threads: int) -> float:
    """Return the microseconds of CPU that this process needs to do ``work`` once."""
    gc.collect()
    before = time.process_time()
    crew.run(work, times, threads)
    return (time.process_time() - before) / (times * threads) * 1e6


if __name__ == "__main__":
    take_orders(Cpu)
