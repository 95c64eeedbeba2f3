"""Have database servers die, switch roles and fall silent under load, and print what became of the requests.

``make failover`` runs all scenarios, ``make failover ARGS='kill galera'`` some. All servers are private ones
on this machine. HAProxy stands in front of them, but where the scenario is about hosts in a list. Times
depend on the machine and on what else it does: repeat a figure before you believe it.
"""

from __future__ import annotations

import argparse
import os
import sys

from servers import Missing
from tools.failover.measure import Outcome, print_table
from tools.failover.scenarios import SCENARIOS, Wishes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--database", choices=["mysql", "postgresql"], default="mysql")
    parser.add_argument("--engines", nargs="+", default=[], help="how the names of the engines begin")
    parser.add_argument("--rate", type=float, default=400.0, help="requests in a second")
    parser.add_argument("--length", type=float, default=1.0, help="the factor for the length of a run")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(unknown)}")
    os.environ.setdefault("POOLLIFE_RUN_DIR", "")  # no board, but in the scenario that needs one
    wishes = Wishes(given.database, given.engines, given.rate, given.length)
    harmed = False
    for name in given.scenarios or SCENARIOS:
        outcomes: list[Outcome] = []
        try:
            for outcome in SCENARIOS[name](wishes):
                print(f"{name}: {' | '.join(outcome.cells())}", file=sys.stderr, flush=True)
                outcomes.append(outcome)
        except Missing as missing:
            print(f"{name}: {missing}", file=sys.stderr)
        finally:
            print_table(f"{name}, {wishes.database}", outcomes)
        harmed = harmed or any(outcome.twice for outcome in outcomes)
    return int(harmed)


if __name__ == "__main__":
    sys.exit(main())
