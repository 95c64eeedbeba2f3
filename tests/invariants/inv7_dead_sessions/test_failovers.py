"""Invariant 7: a failover behind HAProxy, under load. The short form of ``python -m tools.failover``.

Each run takes some seconds: the servers start, and their cluster needs time to notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from django.db import connections

from poollife import pool_stats
from servers.galera import GaleraNode
from tests.conftest import MakeAlias
from tests.support.counting import pool_of
from tests.support.visitors import POOL, Visitors
from tests.support.web_server import eventually
from tools.failover import scenarios
from tools.failover.load import Plan
from tools.failover.measure import Outcome
from tools.failover.scenarios import Wishes

pytestmark = [pytest.mark.slow, pytest.mark.servers]

#: Fewer requests and a shorter run than in the lab.
SHORT = {"engines": ["poollife"], "rate": 100.0, "length": 0.5}


def check(outcome: Outcome, failures: int) -> None:
    """Compare the outcome with what it has to be, times aside."""
    assert len(outcome.failed) <= failures, outcome.errors
    assert (outcome.lost, outcome.twice) == (0, 0)
    # It goes on afterwards, reads and writes.
    last = sorted(outcome.requests)[-20:]
    assert [each.error for each in last] == [None] * 20
    assert {each.kind for each in last} >= {"read", "write"}


@pytest.mark.parametrize("database", ["mysql", "postgresql"])
def test_failover_fails_at_most_the_requests_that_were_in_flight(database: str) -> None:
    """The primary is killed, and its replica promoted two seconds later: the others wait."""
    (outcome,) = scenarios.kill(Wishes(database, **SHORT))  # type: ignore[arg-type]
    check(outcome, Plan.threads)


def test_readers_and_writers_leave_a_primary_that_was_demoted_and_lives_on() -> None:
    """The proxy does not end the old sessions: without a role the readers would stay for ever."""
    for outcome in islice(scenarios.switch_with_role(Wishes("mysql", **SHORT)), 2, 4):  # type: ignore[arg-type]
        assert "to the end" not in outcome.notes[0]
        assert outcome.lost == 0
        # A session for each thread, and some more where one renewal came before the proxy knew.
        assert outcome.opened <= 3 * Plan.threads


@pytest.fixture
def node() -> Iterator[GaleraNode]:
    """The only node of a cluster."""
    with GaleraNode() as node:
        yield node


def test_question_for_the_role_finds_a_galera_node_that_serves_nothing(
    node: GaleraNode, make_alias: MakeAlias
) -> None:
    """Such a node answers SELECT @@read_only, and refuses DO 1 with error 1047."""
    alias = make_alias(server=node, POOL={"role": "primary"})
    pool = pool_of(alias)
    connections[alias].ensure_connection()
    session = connections[alias].connection
    assert session.has_role("primary", 5.0)
    node.execute("SET GLOBAL wsrep_reject_queries = ALL")
    assert session.has_role("primary", 5.0) is None
    node.execute("SET GLOBAL wsrep_reject_queries = NONE")
    connections[alias].close()
    assert pool.out == 0


def test_session_at_a_galera_node_that_serves_nothing_is_lent_to_no_request(
    node: GaleraNode, make_alias: MakeAlias
) -> None:
    """The node accepts the login. One request finds out, and the next one waits."""
    alias = make_alias(server=node, POOL={**POOL, "outage_wait": 30})
    node.execute("CREATE TABLE log (n INT) ENGINE=InnoDB", database=connections[alias].settings_dict["NAME"])
    visitors = Visitors(alias, "SELECT COUNT(*) FROM log")
    visitors.come(1, threads=1)
    node.execute("SET GLOBAL wsrep_reject_queries = ALL")
    visitors.come(1, threads=1)
    with ThreadPoolExecutor(1) as executor:
        later = executor.submit(visitors.come, 20)
        eventually("an attempt has failed", lambda: pool_stats()[alias]["connect_errors"] > 0)
        node.execute("SET GLOBAL wsrep_reject_queries = NONE")
        later.result()
    assert [each.error.args[0] for each in visitors.failed if each.error] == [1047]
    assert len(visitors.requests) == 22
    connections[alias].close()
