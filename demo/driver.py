"""The burst: clients that use every part of the site at the same time, and check each answer."""

from __future__ import annotations

import csv
import http.client
import itertools
import json
import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from demo.tickets.samples import COMMENTS, TICKETS, title

CLIENTS = 8
_TIMEOUT = 60.0
_CSRF = "demo" * 8  # Django compares the cookie with the header, and the runner sends both
_DROPPED_AFTER = 2000  # bytes

Headers = dict[str, str]


@dataclass
class Outcome:
    """The result of one request. A text in one of the first three fields is a broken guarantee."""

    unexpected: str = ""
    wrong: str = ""
    broken: str = ""
    forks: int = 0
    refused: int = 0
    stored: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)


class Unexpected(Exception):
    """An answer with another status than the expected one."""


TROUBLE = (Unexpected, OSError, http.client.HTTPException, ValueError)


class Client:
    """A client with a new HTTP connection for each request, so that the requests reach all workers."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Note the address of the site, host and port."""
        self._address = address

    def get(self, path: str) -> str:
        """Return the whole body of a page.

        :raises Unexpected: the status is not 200.
        """
        return self._ask("GET", path, 200)

    def post(self, path: str, data: dict[str, str], *, status: int = 302, accept: str = "text/html") -> str:
        """Send a form, and return the body of the answer.

        :raises Unexpected: the answer has another status.
        """
        headers = {
            "Accept": accept,
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"csrftoken={_CSRF}",
            "X-CSRFToken": _CSRF,
        }
        return self._ask("POST", path, status, urlencode(data), headers)

    def hang_up(self, path: str) -> None:
        """Read the beginning of a long answer, and close the connection."""
        connection = self._connect()
        try:
            connection.request("GET", path)
            _expect(connection.getresponse().read(_DROPPED_AFTER) != b"", f"GET {path}: an empty answer")
        finally:
            connection.close()

    def _ask(
        self, method: str, path: str, status: int, body: str = "", headers: Headers | None = None
    ) -> str:
        connection = self._connect()
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        _expect(response.status == status, f"{method} {path}: status {response.status} instead of {status}")
        return text

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=_TIMEOUT)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unexpected(otherwise)


def _any_ticket() -> int:
    return random.randint(1, TICKETS)


def _word(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(6)}"


def _read_list(client: Client) -> Outcome:
    page = random.randint(1, TICKETS // 20)
    body = client.get(f"/?page={page}")
    return Outcome(wrong="" if f"Page {page} of" in body else f"list, page {page}: another page came back")


def _read_detail(client: Client) -> Outcome:
    number = _any_ticket()
    body = client.get(f"/tickets/{number}/")
    return Outcome(
        wrong="" if f"<h1>{title(number)}</h1>" in body else f"ticket {number}: another ticket came back"
    )


def _search(client: Client) -> Outcome:
    number = _any_ticket()
    body = client.get(f"/?{urlencode({'q': f'#{number}: '})}")
    return Outcome(wrong="" if title(number) in body else f"search for #{number}: it was not found")


def _echo(client: Client) -> Outcome:
    word = _word("echo")
    answer = json.loads(client.get(f"/echo/{word}/"))["word"]
    return Outcome(wrong="" if answer == word else f"echo: asked for {word}, got {answer}")


def _new_ticket(client: Client) -> Outcome:
    word = _word("ticket")
    client.post("/new/", {"title": word, "author": word, "text": "A ticket of the burst."})
    return Outcome(stored={word, f"Thank you, {word}. We are looking into it."})


def _comment(client: Client) -> Outcome:
    word = _word("comment")
    client.post(f"/tickets/{_any_ticket()}/comment/", {"author": "burst", "text": word})
    return Outcome(stored={word})


def _close(client: Client) -> Outcome:
    word = _word("close")
    client.post(f"/tickets/{_any_ticket()}/close/", {"reason": word})
    return Outcome(stored={f"Closed. {word}"})


def _fail(client: Client) -> Outcome:
    word = _word("fail")
    client.post(f"/tickets/{_any_ticket()}/fail/", {"text": word}, status=500)
    return Outcome(undone={word})


def _export(client: Client) -> Outcome:
    """Read the export, and check that it has the seeded comments of each ticket once and in order."""
    rows = list(csv.reader(client.get("/export.csv").splitlines()))[1:]
    keys = [(int(row[0]), int(row[3])) for row in rows]
    seeded = sum(number <= TICKETS for number, _ in keys)
    titles = all(row[1] == title(int(row[0])) for row in rows if int(row[0]) <= TICKETS)
    right = keys == sorted(set(keys)) and seeded >= COMMENTS * TICKETS and titles
    return Outcome(wrong="" if right else "export.csv: rows are missing, doubled or out of order")


def _drop(client: Client) -> Outcome:
    client.hang_up("/export.csv")
    return Outcome()


def _fork(way: str) -> Callable[[Client], Outcome]:
    def fork(client: Client) -> Outcome:
        word = _word("fork")
        form = {"way": way, "text": word, "ticket": str(_any_ticket())}
        try:
            answer = json.loads(client.post("/reports/", form, status=200, accept="application/json"))
        except Unexpected as error:
            return Outcome(broken=f"fork ({way}): {error}", forks=1)
        refused = int("refused" in answer["child"])
        broken, wrong = _harm(way, answer), _mixed(way, answer)
        return Outcome(broken=broken, wrong=wrong, forks=1, refused=refused, stored={word})

    return fork


def _harm(way: str, answer: dict[str, Any]) -> str:
    """Return what a fork did to the request that forked; an empty text if nothing.

    The row that the request wrote is checked after the burst.
    """
    child = answer["child"]
    if answer["before"] != answer["after"]:
        return f"fork ({way}): the parent's session {answer['before']} became {answer['after']}"
    if "error" in child:
        return f"fork ({way}): {child['error']}"
    if way == "transaction" and "refused" not in child:
        return f"fork ({way}): the child worked in the parent's transaction"
    # On SQLite a transaction or an open cursor of any thread has this effect: locks belong to the process.
    if way != "transaction" and "refused" in child and answer["vendor"] != "sqlite":
        return f"fork ({way}): the child could not work: {child['refused']}"
    return ""


def _mixed(way: str, answer: dict[str, Any]) -> str:
    """Return how many answers reached the wrong process, as a text; an empty text if none."""
    count = answer.get("wrong", 0) + answer["child"].get("wrong", 0)
    return f"fork ({way}): {count} answers were mixed up between parent and child" if count else ""


# The kinds of requests, and how many of each are in a hundred.
_MIX: list[tuple[int, Callable[[Client], Outcome]]] = [
    (18, _read_list),
    (18, _read_detail),
    (8, _search),
    (26, _echo),
    (4, _new_ticket),
    (8, _comment),
    (4, _close),
    (3, _fail),
    (2, _export),
    (2, _drop),
    (2, _fork("plain")),
    (2, _fork("together")),
    (2, _fork("finalized")),
    (1, _fork("transaction")),
]


def burst(address: tuple[str, int], count: int) -> Iterator[Outcome]:
    """Send requests from all clients at once, and yield each outcome as it comes.

    :param address: the host and port of the site.
    :param count: the number of requests.
    """
    client = Client(address)
    clients = ThreadPoolExecutor(CLIENTS)
    try:
        tasks = [clients.submit(_guarded, request, client) for request in _plan(count)]
        yield from (task.result() for task in as_completed(tasks))
    finally:
        # After Ctrl-C: do not wait for answers. The site is stopped next, and that ends the open requests.
        clients.shutdown(wait=False, cancel_futures=True)


def _plan(count: int) -> Iterable[Callable[[Client], Outcome]]:
    """Return so many requests of the mix, in random order; a long plan repeats that order."""
    once = [request for share, request in _MIX for _ in range(share)]
    random.shuffle(once)
    return itertools.islice(itertools.cycle(once), count)


def _guarded(request: Callable[[Client], Outcome], client: Client) -> Outcome:
    try:
        return request(client)
    except TROUBLE as error:
        return Outcome(unexpected=str(error) or type(error).__name__)
