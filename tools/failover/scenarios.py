"""The scenarios of the lab. Each returns the lines of a table."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from benchmarks.peers import Peer
from servers.haproxy import Behaviour
from tools.failover import labs
from tools.failover.measure import BEFORE, Load, Outcome, measure, peers

PAIRS: dict[str, type[labs.Pair]] = {"mysql": labs.MariaDBPair, "postgresql": labs.PostgreSQLPair}
#: Seconds from the end of the primary until the replica takes writes.
PROMOTION = 2.0
#: Seconds at the end of a run whose requests show where it has led to.
LAST = 3.0


@dataclass(frozen=True)
class Wishes:
    """The wishes of the caller of the lab."""

    database: str = "mysql"
    #: How the names of the engines begin.
    engines: Sequence[str] = ()
    #: Requests in a second.
    rate: float = 400.0
    #: The factor for the length of a run.
    length: float = 1.0

    @property
    def peers(self) -> list[Peer]:
        """The engines."""
        return peers(self.database, self.engines)

    @property
    def ours(self) -> Peer:
        """poollife."""
        return peers(self.database, ["poollife"])[0]

    @property
    def pair(self) -> type[labs.Pair]:
        """The primary and the replica."""
        return PAIRS[self.database]


def primary_dies(lab: labs.Pair, load: Load) -> float:
    """Kill the primary, and promote the replica later; return the time of the death."""
    event = time.monotonic()
    lab.primary.halt(immediate=True)
    time.sleep(PROMOTION)
    lab.promote()
    return event


def roles_change(lab: labs.Pair, load: Load) -> float:
    """Have primary and replica change their roles in an orderly way; return the time of the begin."""
    event = time.monotonic()
    lab.demote()
    lab.promote()
    return event


def kill(wishes: Wishes) -> Iterator[Outcome]:
    """The primary dies, and the replica is promoted 2 s later."""
    for peer in wishes.peers:
        with wishes.pair() as lab:
            yield measure(
                "kill -9",
                peer,
                lab.entry,
                partial(primary_dies, lab),
                rows=partial(lab.rows, lab.replica),
                opened=lab.opened,
                rate=wishes.rate,
                seconds=BEFORE + 9 * wishes.length,
            )


def switch(wishes: Wishes, pool: dict[str, Any] | None = None) -> Iterator[Outcome]:
    """The roles change in an orderly way, with and without an end of the old sessions."""
    for cuts in (True, False):
        for kinds in (["read", "write", "atomic"], ["read"]):
            for peer in wishes.peers if cuts and len(kinds) > 1 else [wishes.ours]:
                with wishes.pair(Behaviour(cuts=cuts)) as lab:
                    outcome = measure(
                        f"switch, {'cut' if cuts else 'not cut'}, {'all' if len(kinds) > 1 else 'readers'}",
                        peer,
                        lab.entry,
                        partial(roles_change, lab),
                        rows=partial(lab.rows, lab.replica),
                        opened=lab.opened,
                        pool=pool if peer is wishes.ours else None,
                        kinds=kinds,
                        rate=wishes.rate if len(kinds) > 1 else wishes.rate / 5,
                        seconds=BEFORE + 12 * wishes.length,
                    )
                    outcome.notes.append(last_read(outcome, lab.primary.port))
                    yield outcome


def last_read(outcome: Outcome, port: int) -> str:
    """Return how long reads came from a server after the event, for people."""
    old = [each.began - outcome.event for each in outcome.requests if each.server == port]
    end = max(each.ended for each in outcome.requests) - outcome.event
    last = max(old, default=0.0)
    return (
        "old primary read to the end" if last > end - LAST else f"old primary read for {max(0, last):.1f} s"
    )


def switch_with_role(wishes: Wishes) -> Iterator[Outcome]:
    """The roles change in an orderly way, with ``POOL["role"]``."""
    return switch(replace(wishes, engines=["poollife"]), {"role": "primary"})


def down(wishes: Wishes) -> Iterator[Outcome]:
    """The server is away for 20 s, with requests all the time, and with none after the first seconds."""
    away = 20.0

    def happens(lab: labs.Pair, load: Load) -> float:
        event = time.monotonic()
        lab.primary.halt()
        time.sleep(max(0.0, event + away - time.monotonic()))
        lab.primary.start()
        happened.append(time.monotonic())
        return event

    for quiet in ((0.0, 0.0), (BEFORE + 8, BEFORE + away + 3)):
        for peer in wishes.peers:
            happened: list[float] = []
            with wishes.pair() as lab:
                outcome = measure(
                    f"down for {away:.0f} s" + (", quiet" if quiet[1] else ""),
                    peer,
                    {**lab.entry, "PORT": str(lab.primary.port)},
                    partial(happens, lab),
                    rows=partial(lab.rows, lab.primary),
                    rate=80,
                    quiet=quiet,
                    seconds=BEFORE + away + 6,
                )
            back = happened[0]
            waited = [each for each in outcome.failed if each.began - outcome.event < 1]
            later = [each.took for each in outcome.failed if 7 < each.began - outcome.event < away]
            after = sorted(each for each in outcome.requests if each.began > back + 1)[:20]
            right_after = sorted(each for each in outcome.requests if each.began > back)[:20]
            outcome.notes += [
                f"those of the first second waited {max((e.took for e in waited), default=0):.1f} s at most",
                f"99 of 100 of {len(later)} later ones {percentile(later) * 1000:.0f} ms",
                f"of 20 a second after its return {sum(bool(e.error) for e in after)} failed",
                f"of 20 right after it {sum(bool(e.error) for e in right_after)}",
            ]
            if outcome.stats:
                outcome.notes.append(f"{outcome.stats['connect_errors']} attempts failed")
            yield outcome


def percentile(durations: Sequence[float]) -> float:
    """Return the time that 99 of 100 durations do not exceed; 0 without any."""
    return sorted(durations)[int(0.99 * len(durations))] if durations else 0.0


def galera(wishes: Wishes) -> Iterator[Outcome]:
    """A node of three is killed, stopped, or cut off from the others, with two kinds of checks."""
    ways: dict[str, Callable[[Any], None]] = {
        "kill -9": lambda node: node.halt(immediate=True),
        "stop": lambda node: node.halt(),
        "split": lambda node: node.isolate(),
    }
    for check in ((), labs.MYSQL_CHECK):
        for way, act in ways.items():
            for kinds in (["read", "write", "atomic"], ["read", "write"]):
                if len(kinds) == 2 and way != "split":
                    continue
                for peer in wishes.peers if way == "split" else [wishes.ours]:
                    with labs.GaleraCluster(Behaviour(check, balance="leastconn")) as lab:
                        node = lab.servers[-1]

                        def happens(load: Load, node: Any = node, act: Any = act) -> float:
                            event = time.monotonic()
                            act(node)
                            return event

                        outcome = measure(
                            f"{way}, {'mysql-check' if check else 'wsrep check'}, {'/'.join(kinds)}",
                            peer,
                            lab.entry,
                            happens,
                            rows=partial(lab.rows, lab.servers[0]),
                            opened=lab.opened,
                            threads=9,
                            rate=wishes.rate,
                            kinds=kinds,
                            seconds=BEFORE + 14 * wishes.length,
                        )
                        end = outcome.event + 14 * wishes.length
                        late = [each for each in outcome.requests if each.began > end - LAST]
                        outcome.notes.append(f"{sum(bool(e.error) for e in late)} of the last {len(late)}")
                        if outcome.failed:
                            first = min(each.ended for each in outcome.failed)
                            last = max(each.ended for each in outcome.failed)
                            outcome.notes.append(f"{last - first:.1f} s from the first to the last")
                        yield outcome


def idle(wishes: Wishes) -> Iterator[Outcome]:
    """A proxy's limit of idleness, and requests that come just as it ends a session."""
    limit = 1.0
    sides = {"client": Behaviour(client_timeout=limit), "server": Behaviour(server_timeout=limit)}
    for ping, side in product((30, 0.5), sides):
        with wishes.pair(sides[side]) as lab:
            outcome = measure(
                f"timeout {side} {limit:.0f} s, ping_idle {ping}",
                wishes.ours,
                lab.entry,
                lambda load: load.began,
                opened=lab.opened,
                pool={"ping_idle": ping},
                threads=12,
                aim=limit,
                seconds=30 * limit,
            )
            yield outcome


def silent(wishes: Wishes) -> Iterator[Outcome]:
    """The primary hangs behind a proxy that does not end sessions, and the replica is promoted 2 s later."""

    def happens(lab: labs.Pair, load: Load) -> float:
        event = time.monotonic()
        lab.pause(lab.primary)
        time.sleep(PROMOTION)
        lab.promote()
        return event

    options: dict[str, Any] = {"read_timeout": 5}
    if wishes.database == "postgresql":
        options = {}
    # HAProxy ends what hangs after a while, or the run would not end.
    with wishes.pair(Behaviour(cuts=False, server_timeout=20)) as lab:
        entry = lab.entry
        yield measure(
            f"silent, not cut, {options or 'timeout server 20 s'}",
            wishes.ours,
            {**entry, "OPTIONS": {**entry["OPTIONS"], **options}},
            partial(happens, lab),
            rows=partial(lab.rows, lab.replica),
            opened=lab.opened,
            rate=wishes.rate,
            seconds=BEFORE + 9,
        )


def hosts(wishes: Wishes) -> Iterator[Outcome]:
    """No proxy: HOST lists both servers. The primary dies, or stays and takes no writes any more."""
    pools: list[dict[str, Any]] = [{}, {"role": "primary"}]
    for what, happens in (("kill -9", primary_dies), ("switch", roles_change)):
        for pool in pools:
            with wishes.pair() as lab:
                entry = lab.entry_of_hosts(lab.primary, lab.replica)
                if wishes.database == "postgresql":
                    entry["OPTIONS"] = {**entry["OPTIONS"], "target_session_attrs": "read-write"}
                outcome = measure(
                    f"hosts, {what}, {pool or 'no role'}",
                    wishes.ours,
                    entry,
                    partial(happens, lab),
                    rows=partial(lab.rows, lab.replica),
                    pool=pool,
                    rate=wishes.rate / 5,
                    seconds=BEFORE + 9,
                )
                outcome.opened = outcome.stats["opened"] if outcome.stats else 0
                yield outcome


@contextmanager
def board() -> Iterator[None]:
    """Have the sites of the block share a board."""
    before = os.environ["POOLLIFE_RUN_DIR"]
    with tempfile.TemporaryDirectory(prefix="poollife-") as folder:
        os.environ["POOLLIFE_RUN_DIR"] = folder
        try:
            yield
        finally:
            os.environ["POOLLIFE_RUN_DIR"] = before


def suspend(wishes: Wishes) -> Iterator[Outcome]:
    """The recipe for a planned switch, by the commands for all processes of a host."""

    def happens(lab: labs.Pair, load: Load) -> float:
        event = time.monotonic()
        load.order("pool_suspend", "--all", "--for", "30")
        load.order("pool_drain", "--all", "--timeout", "10")
        lab.demote()
        lab.promote()
        lab.wait_for_proxy("s1")
        load.order("pool_resume", "--all")
        resumed.append(time.monotonic())
        return event

    for rate in (wishes.rate / 5, wishes.rate):
        resumed: list[float] = []
        with wishes.pair() as lab, board():
            outcome = measure(
                f"suspend, drain, switch, resume, {rate:.0f}/s",
                wishes.ours,
                lab.entry,
                partial(happens, lab),
                rows=partial(lab.rows, lab.replica),
                opened=lab.opened,
                rate=rate,
                seconds=BEFORE + 25,
            )
            after = sum(each.began > resumed[0] for each in outcome.requests)
            outcome.notes.append(f"{after} requests after it, {resumed[0] - outcome.event:.1f} s in all")
            yield outcome


def maintenance(wishes: Wishes) -> Iterator[Outcome]:
    """A node of three is taken out of the proxy for 5 s, and its sessions ended."""
    for recycle in (None, 5):
        with labs.GaleraCluster(Behaviour(balance="leastconn")) as lab:

            def happens(load: Load, lab: Any = lab) -> float:
                event = time.monotonic()
                lab.proxy.ask("set server database/s2 state maint")
                lab.proxy.ask("shutdown sessions server database/s2")
                time.sleep(5)
                lab.proxy.ask("set server database/s2 state ready")
                return event

            outcome = measure(
                f"maintenance, recycle {recycle}",
                wishes.ours,
                lab.entry,
                happens,
                opened=lab.opened,
                pool={"recycle": recycle},
                threads=9,
                rate=300,
                kinds=["hold"],
                seconds=BEFORE + 18,
            )
            end = max(each.ended for each in outcome.requests)
            last = Counter(each.server for each in outcome.requests if each.began > end - LAST)
            outcome.notes.append(
                "reads of the last 3 s by node: " + "/".join(str(last[node.port]) for node in lab.servers)
            )
            yield outcome


SCENARIOS: dict[str, Callable[[Wishes], Iterator[Outcome]]] = {
    "kill": kill,
    "switch": switch,
    "role": switch_with_role,
    "down": down,
    "galera": galera,
    "idle": idle,
    "silent": silent,
    "hosts": hosts,
    "suspend": suspend,
    "maintenance": maintenance,
}
