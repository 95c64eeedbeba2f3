"""Invariant 7: a balancer goes on to lead new sessions to a Galera node that has lost its cluster.

The check of such a balancer asks only whether the node accepts logins, and it does.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

from poollife import pool_stats
from poollife.errors import UselessSession
from tests.conftest import MakeAlias
from tests.support.cluster import Cluster
from tests.support.counting import pool_of
from tests.support.visitors import POOL, THREADS, Visitors
from tests.support.web_server import eventually

UNANSWERED = "has accepted the login, and answers no statement"


def errors(visitors: Visitors) -> list[Any]:
    """Return the numbers of the errors that requests got."""
    return [each.error.args[0] for each in visitors.failed if each.error]


def test_session_at_a_lost_node_is_not_lent_after_one_at_another_node_was_opened(
    make_alias: MakeAlias, cluster: Cluster
) -> None:
    """The one that was opened says nothing of the next."""
    alias = make_alias(PORT=str(cluster.port), POOL=POOL)
    visitors = Visitors(alias)
    visitors.come(1, threads=1)
    cluster.leave_primary_component()
    visitors.come(1, threads=1)
    cluster.next_lost.extend([False, True, False, True, False, True, False])
    visitors.fill()
    visitors.come(4 * THREADS)
    assert errors(visitors) == [1047]
    assert pool_stats()[alias]["connect_errors"] == 3
    connections[alias].close()


def test_checkout_waits_for_a_session_at_another_node_while_all_new_ones_lead_to_a_lost_node(
    make_alias: MakeAlias, cluster: Cluster
) -> None:
    """The server is not down for a pool that has sessions which work, however long the outage."""
    alias = make_alias(PORT=str(cluster.port), POOL={**POOL, "outage_wait": 0.01})
    visitors, pool = Visitors(alias), pool_of(alias)
    visitors.come(1, threads=1)
    with connections[alias].cursor() as cursor:  # the only session
        cluster.leads_to_lost = True
        pool._outage.doubt()
        with ThreadPoolExecutor(1) as executor:
            later = executor.submit(visitors.come, 1, 1)
            eventually("attempts have failed", lambda: pool_stats()[alias]["connect_errors"] > 4)
            cursor.execute("SELECT 1")
            connections[alias].close()
            later.result()
    assert visitors.failed == []
    assert pool.opened == 1
    connections[alias].close()


def test_pool_that_lends_any_role_lends_no_session_at_a_lost_node(
    make_alias: MakeAlias, cluster: Cluster
) -> None:
    """No answer to the question for the role is not that of a replica, which is lent after the wait."""
    pool = {**POOL, "role": "primary", "outage_wait": 0.01}
    alias = make_alias(PORT=str(cluster.port), POOL=pool)
    cluster.leads_to_lost = True
    visitors = Visitors(alias)
    pool_of(alias)._outage.accepts_any_role = True
    visitors.come(3, threads=1)
    assert {type(each.error) for each in visitors.failed} == {UselessSession}
    assert (len(visitors.failed), pool_of(alias).opened) == (3, 0)
    connections[alias].close()


def test_checkout_of_a_pool_without_a_session_fails_after_outage_wait(
    make_alias: MakeAlias, cluster: Cluster
) -> None:
    """No session can be returned."""
    alias = make_alias(PORT=str(cluster.port), POOL={**POOL, "outage_wait": 0.01})
    visitors, pool = Visitors(alias), pool_of(alias)
    visitors.come(1, threads=1)
    cluster.leave_primary_component()
    cluster.leads_to_lost = True
    visitors.come(2, threads=1)
    assert errors(visitors)[0] == 1047
    assert UNANSWERED in str(visitors.failed[1].error)
    cluster.leads_to_lost = False
    eventually("the probe has found it", lambda: pool_stats()[alias]["opened"] > 1)
    visitors.come(4, threads=1)
    assert len(visitors.failed) == 2
    assert pool.closed == 1
    connections[alias].close()
