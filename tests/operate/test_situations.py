"""Bad situations of a site in three kinds of processes, each found by following docs/operating.md.

The docstring of each test quotes the symptom, and its row in the table of the page names the command.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import MySQLdb
import pytest

from servers import MariaDB, PostgreSQL, PrivateServer
from tests.support import ROOT
from tests.support.operated_site.running import KINDS, LIMIT, NAME, OperatedSite, rows
from tests.support.web_server import eventually

pytestmark = [pytest.mark.slow, pytest.mark.servers]

PAGE = (ROOT / "docs/operating.md").read_text()
SECTION = PAGE.partition("## From the symptom to the cause")[2].partition("\n## ")[0]
#: For each symptom the arguments of its command, and what to look for.
SYMPTOMS = {
    symptom: (command.strip("`").split()[2:], look_for)
    for symptom, command, look_for in (
        line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")
    )
    if symptom != "symptom"
}
#: The questions for the holder of a lock.
MARIADB_LOCKS, POSTGRESQL_LOCKS = re.findall(r"```sql\n(.+?)```", SECTION, re.DOTALL)


class Found(NamedTuple):
    """The output of the command that the page names for a symptom."""

    tables: str
    json: dict[str, Any]

    def rows(self, title: str) -> list[dict[str, str]]:
        return rows(self.tables, title)


Follow = Callable[[], Found]


@pytest.fixture(scope="module")
def site(
    mariadb: MariaDB, postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatedSite]:
    with OperatedSite(tmp_path_factory.mktemp("operated"), mariadb, postgresql) as site:
        yield site


@pytest.fixture
def follow(site: OperatedSite, request: pytest.FixtureRequest) -> Follow:
    """A function that runs the command of the page for the symptom of this test."""
    arguments, look_for = SYMPTOMS[symptom_of(request.function)]
    first_table = re.findall(r"\*\*(.+?)\*\*", look_for)[0]

    def run() -> Found:
        found = Found(site.status(*arguments), json.loads(site.status(*arguments, "--json")))
        assert found.rows(first_table), found.tables
        return found

    return run


def symptom_of(test: Callable[..., object]) -> str:
    return re.findall(r'^Symptom: "(.+)"', test.__doc__ or "")[0]  # type: ignore[no-any-return]


def checkouts(found: dict[str, Any]) -> int:
    number: int = found["totals"]["default"]["counters"]["checkouts"]
    return number


def test_page_has_a_row_for_each_situation() -> None:
    situations = [
        symptom_of(test)
        for test in vars(sys.modules[__name__]).values()
        if callable(test) and "Symptom: " in (test.__doc__ or "")
    ]
    assert situations == list(SYMPTOMS)


def test_sums_are_the_requests_and_tasks_of_all_kinds(site: OperatedSite) -> None:
    before = json.loads(site.status("--json"))
    sent = [
        (number, site.start(kind, "echo", number))
        for number, kind in enumerate(["gunicorn"] * 30 + ["uwsgi"] * 20 + ["celery"] * 20)
    ]
    answers = [answer.result() for _, answer in sent]
    assert [answer["number"] for answer in answers] == [number for number, _ in sent]
    # The answer of a task arrives before the task has ended.
    site.wait_until_quiet()
    after = json.loads(site.status("--json"))
    assert checkouts(after) - checkouts(before) == len(sent)
    # Each process has counted what it answered.
    assert counted(after) - counted(before) == Counter(answer["pid"] for answer in answers)
    commands = {each["pid"]: each["command"].split()[0] for each in after["processes"]}
    assert {commands[answer["pid"]] for answer in answers} == set(KINDS)


def counted(found: dict[str, Any]) -> Counter[int]:
    """Return the checkouts of each process that lives, from the pools of this alias."""
    return Counter(
        {
            process["pid"]: pool["totals"]["counters"]["checkouts"]
            for process in found["processes"]
            for pool in process["pools"]
            if pool["alias"] == "default"
        }
    )


def test_process_whose_connections_are_all_out_is_shown_with_its_waiting_checkouts(
    site: OperatedSite, follow: Follow
) -> None:
    """Symptom: "Requests wait, or fail with `PoolTimeout`"."""

    def wait_for(number: int) -> None:
        eventually(
            f"{number} have borrowed, or wait",
            lambda: sum(pool.out + pool.waiting for pool in site.pools().values()) == number,
        )

    with site.releasing("dry") as name:
        dry: list[int] = []
        for number in count(1):
            site.start("gunicorn", "hold", name)
            wait_for(number)
            if dry := [pid for pid, pool in site.pools().items() if pool.waiting]:
                break
        (pid,) = dry
        found = follow()
    (row,) = [row for row in found.rows("Processes (") if (row["pid"], row["pool"]) == (str(pid), "default")]
    assert [row[key] for key in ("limit", "out", "idle", "wait", "most")] == [str(LIMIT), str(LIMIT), *"011"]
    holders = [row["work"] for row in found.rows("Borrowed") if row["pid"] == str(pid)]
    assert holders == [f"GET /hold/{name}/"] * LIMIT
    (process,) = [each for each in found.json["processes"] if each["pid"] == pid]
    (pool,) = [each for each in process["pools"] if each["alias"] == "default"]
    assert (pool["limit"], pool["out"], pool["waiting"], pool["max_waiting"]) == (LIMIT, LIMIT, 1, 1)


def test_view_that_keeps_pythons_lock_is_shown_with_its_path_and_pid(
    site: OperatedSite, follow: Follow
) -> None:
    """Symptom: "A worker does not answer at all"."""
    workers = site.gunicorn_workers()
    site.start("gunicorn", "freeze", "view")
    pid = site.holder("/freeze/view/").pid
    try:
        eventually("it is about to call C code", (site.folder / "frozen-view").exists)
        # It is asked first. When the others have answered, it has not.
        os.kill(pid, signal.SIGUSR2)
        for other in workers - {pid}:
            os.kill(other, signal.SIGUSR2)
            eventually("another worker answers", (site.folder / f"alive-{other}").exists)
        assert not (site.folder / f"alive-{pid}").exists()
        found = follow()
    finally:
        os.kill(pid, signal.SIGKILL)
        eventually("it is gone", lambda: pid not in site.processes())
    row = found.rows("Borrowed")[0]
    assert (row["work"], row["pid"]) == ("GET /freeze/view/", str(pid))
    (process,) = [each for each in found.json["processes"] if each["pid"] == pid]
    assert [(holder["work"], holder["pid"]) for holder in process["holders"]] == [("GET /freeze/view/", pid)]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_worker_is_shown_with_what_it_held_and_its_counts_stay(
    site: OperatedSite, follow: Follow, kind: str
) -> None:
    """Symptom: "A worker was killed"."""
    before = checkouts(json.loads(site.status("--json")))
    with site.releasing(f"killed-{kind}") as name:
        site.start(kind, "hold", name)
        eventually("it has a session", lambda: bool(site.board().holders))
        (holder,) = site.board().holders
        os.kill(holder.pid, signal.SIGKILL)
        eventually("it is gone", lambda: holder.pid not in site.processes())
        found = follow()
    (row,) = [row for row in found.rows("Processes that died") if row["pid"] == str(holder.pid)]
    assert (row["work"], row["session"]) == (holder.work, str(holder.session))
    assert row["command"].split()[0] == kind
    assert ("task hold[" if kind == "celery" else f"GET /hold/{name}/") in row["work"]
    (death,) = [each for each in found.json["deaths"] if each["pid"] == holder.pid]
    assert [each["work"] for each in death["holders"]] == [holder.work]
    assert checkouts(found.json) == before + 1


def test_thread_that_outlives_its_request_is_shown_first_with_its_session(
    site: OperatedSite, follow: Follow
) -> None:
    """Symptom: "A connection is never returned"."""
    with site.releasing("export") as name:
        started = site.start("uwsgi", "export", name).result()
        site.start("gunicorn", "hold", name)
        site.holder(f"/hold/{name}/")
        found = follow()
        processlist = {row[0]: row[3] for row in site.servers["default"].execute("SHOW PROCESSLIST")}
    first, second = found.rows("Borrowed")
    assert (first["thread"], first["work"], first["pid"]) == (name, "", str(started["pid"]))
    assert first["session"] == str(started["session"])
    assert processlist[started["session"]] == NAME
    assert second["work"] == f"GET /hold/{name}/"
    assert float(first["held (s)"]) >= float(second["held (s)"])
    (process,) = [each for each in found.json["processes"] if each["pid"] == started["pid"]]
    assert [each["session"] for each in process["holders"]] == [started["session"]]


@pytest.mark.parametrize(
    ("alias", "waiting_state", "idle_state", "locks"),
    [
        ("default", "Updating", "Sleep", MARIADB_LOCKS),
        ("reports", "Lock", "idle in transaction", POSTGRESQL_LOCKS),
    ],
)
def test_session_that_waits_for_a_lock_is_shown_with_its_state_and_the_holder_of_the_lock(
    site: OperatedSite, follow: Follow, alias: str, waiting_state: str, idle_state: str, locks: str
) -> None:
    """Symptom: "A statement does not come back: it waits for a lock"."""
    with site.releasing(f"pay-{alias}") as name:
        site.start("gunicorn", "pay", name, alias)
        eventually("a row is locked", (site.folder / f"locked-{name}").exists)
        first = site.holder(f"/pay/{name}/{alias}/")
        waits_in = site.start("celery", "pay", name, alias)
        second = site.holder("task pay[")
        pair = [(second.session, first.session)]
        eventually("the server says who waits for whom", lambda: ask(site.servers[alias], locks) == pair)
        found = follow()
    assert waits_in.result() == {"pid": second.pid}
    sessions = {row["session"]: row for row in found.rows("Sessions of the servers") if row["pool"] == alias}
    waits, has = sessions[str(second.session)], sessions[str(first.session)]
    assert waiting_state in waits["state"]
    assert waits["statement"].startswith("UPDATE accounts")
    assert (waits["holder"], waits["pid"]) == (second.work, str(second.pid))
    assert has["state"].startswith(idle_state)
    assert (has["holder"], has["pid"]) == (first.work, str(first.pid))
    told = {each["session"]: each["holder"] for each in found.json["server"] if each["alias"] == alias}
    assert (told[second.session], told[first.session]) == (second.work, first.work)
    # As the page has it.
    assert all(f"`{state}`" in SECTION for state in (waiting_state, idle_state))


def ask(server: PrivateServer, question: str) -> list[tuple[Any, ...]]:
    # InnoDB answers from a copy, and renews it only if nothing has asked for 0.1 seconds: MySQL bug 48883.
    time.sleep(0.2)
    return server.execute(question)


def test_session_of_no_pool_is_shown_as_such(site: OperatedSite, follow: Follow) -> None:
    """Symptom: "The server has more sessions than expected"."""
    server = site.servers["default"]
    options = server.database(NAME)
    stranger = MySQLdb.connect(
        host=options["HOST"],
        port=int(options["PORT"]),
        user=options["USER"],
        password=options["PASSWORD"],
        database=NAME,
    )
    try:
        found = follow()
        session = str(stranger.thread_id())
    finally:
        stranger.close()
    (row,) = [row for row in found.rows("Sessions of the servers") if row["session"] == session]
    assert (row["pid"], row["holder"]) == ("not of this host's pools", "")
    (told,) = [each for each in found.json["server"] if str(each["session"]) == session]
    assert (told["pid"], told["holder"]) == (None, None)
