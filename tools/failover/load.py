"""The load of the lab: a site in a process of its own, which some threads send requests to.

``python -m tools.failover.load '<json>'`` reads a ``Plan`` and prints "ready", and at the end the requests as
JSON. With more arguments it runs them as a command of manage.py, for the processes of that site. The site is
called as a WSGI server calls it, without a server in between.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, NamedTuple

#: The kinds of requests, and the rows that each writes.
ROWS = {"read": 0, "write": 1, "atomic": 2, "hold": 0}
#: Seconds by which an aimed request may be early and late.
SPREAD = (-0.012, 0.004)
#: Seconds for which a request of the kind "hold" keeps its session, after its statements.
HOLD = 0.02


@dataclass
class Plan:
    """The parts of a load."""

    #: The entry of DATABASES.
    entry: dict[str, Any]
    middleware: list[str] = field(default_factory=list)
    apps: list[str] = field(default_factory=list)
    #: The kinds, in turn.
    kinds: list[str] = field(default_factory=lambda: ["read", "write", "atomic"])
    threads: int = 8
    #: Requests in a second, of all threads together. A thread that had to wait does not catch up.
    rate: float = 400.0
    seconds: float = 10.0
    #: Seconds from the begin: no request begins between these two.
    quiet: tuple[float, float] = (0.0, 0.0)
    #: In place of the rate: all threads send a request at once, and so many seconds after their last one the
    #: next, a few milliseconds more or less.
    aim: float | None = None

    def text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps(asdict(self))


class Request(NamedTuple):
    """A request that has ended."""

    #: Times on the monotonic clock, which all processes of the machine share.
    began: float
    ended: float
    kind: str
    #: The text in the rows that it writes.
    marker: str
    #: None: it succeeded.
    error: str | None
    #: The port of the server that has answered a read.
    server: int | None

    @property
    def took(self) -> float:
        """Seconds from its begin to its end."""
        return self.ended - self.began


class Report(NamedTuple):
    """The outcome of a load."""

    requests: list[Request]
    #: poollife's ``pool_stats()``; None with another ENGINE.
    stats: dict[str, Any] | None


def report_of(text: str) -> Report:
    """Return the report in the output of the program."""
    found = json.loads(text)
    return Report([Request(*each) for each in found["requests"]], found["stats"])


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    call = site(plan)
    if command := sys.argv[2:]:
        from django.core.management import call_command

        call_command(*command)
        return
    print("ready", flush=True)
    done: list[Request] = []
    begin = time.monotonic()
    target = send if plan.aim is None else partial(send_aimed, threading.Barrier(plan.threads))
    threads = [
        threading.Thread(target=target, args=(plan, begin, number, call, done))
        for number in range(plan.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"requests": done, "stats": stats_of(plan)}))


def send(
    plan: Plan, begin: float, number: int, call: Callable[[str, str], Answer], done: list[Request]
) -> None:
    """Send a thread's part of the requests, one after the other."""
    pause = plan.threads / plan.rate
    due, count = begin + number * pause / plan.threads, number
    while (now := time.monotonic()) < begin + plan.seconds:
        if due > now:
            time.sleep(due - now)
        began = time.monotonic()
        if plan.quiet[0] <= began - begin < plan.quiet[1]:
            due = begin + plan.quiet[1]
            continue
        due, count = max(due + pause, began), count + 1
        send_one(plan.kinds[count % len(plan.kinds)], f"{number}-{count}", call, done)


def send_one(kind: str, marker: str, call: Callable[[str, str], Answer], done: list[Request]) -> float:
    """Send a request, and return the time at which it ended."""
    began = time.monotonic()
    answer = call(kind, marker)
    ended = time.monotonic()
    done.append(Request(began, ended, kind, marker, answer.error, answer.server))
    return ended


def send_aimed(
    together: threading.Barrier,
    plan: Plan,
    begin: float,
    number: int,
    call: Callable[[str, str], Answer],
    done: list[Request],
) -> None:
    """Send requests after a pause that is as long as some limit, a little more or less."""
    assert plan.aim is not None
    for count in range(int(plan.seconds / plan.aim)):
        together.wait()
        # The last bytes passed before the request held its session.
        time.sleep(plan.aim - HOLD + random.uniform(*SPREAD))
        send_one("hold", f"{number}-{count}", call, done)


class Answer(NamedTuple):
    """The answer to a request."""

    error: str | None
    server: int | None


def site(plan: Plan) -> Callable[[str, str], Answer]:
    """Return a function that has Django answer a request, from the arguments kind and marker."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": plan.entry},
        INSTALLED_APPS=plan.apps,
        MIDDLEWARE=plan.middleware,
        ROOT_URLCONF="tools.failover.site",
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="lab",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()
    import logging

    from django.core.signals import got_request_exception
    from django.core.wsgi import get_wsgi_application

    logging.getLogger("django").setLevel(logging.CRITICAL)
    application: Any = get_wsgi_application()
    last = threading.local()

    def note(**_: Any) -> None:
        error = sys.exc_info()[1]
        last.error = f"{type(error).__name__}: {' '.join(str(error).split())}"

    got_request_exception.connect(note, weak=False)

    def call(kind: str, marker: str) -> Answer:
        last.error = None
        status: list[str] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": f"/{kind}/{marker}",
            "SERVER_NAME": "lab",
            "SERVER_PORT": "80",
            "wsgi.input": sys.stdin.buffer,
        }
        response = application(environ, lambda line, headers: status.append(line))
        body = b"".join(response)
        response.close()
        if status[0].startswith("200"):
            return Answer(None, int(body))
        return Answer(last.error or status[0], None)

    return call


def stats_of(plan: Plan) -> Any:
    """Return the pool's own account."""
    if "poollife" not in plan.apps:
        return None
    from poollife import pool_stats

    return pool_stats()["default"]


if __name__ == "__main__":
    main()
