"""Use a pool in all wrong ways, by many threads and on a real server, and count mistakes: ``make stress``.

The exit status is 0 if no session was lost, lent twice or beyond the limit.
"""

from __future__ import annotations

import argparse
import random
import sys
from typing import Any

from servers import MariaDB
from tests.support.programs.pool_stress import OVERFLOW, SIZE
from tests.support.programs.running import run

#: Seconds that a run may take beside ``--seconds``.
GRACE = 120.0
#: The values of a report that must be empty.
MISTAKES = (
    "hung",
    "wrong",
    "rolled back and there",
    "out",
    "not back",
    "opened, not closed",
    "pools with something",
    "threads",
)


def main() -> int:
    """Run the program in each way, and print the reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    given = parser.parse_args()
    failed = False
    with MariaDB() as server:
        for way in given.ways:
            report = stress(server, way, given.seed, given.seconds, given.threads)
            found = mistakes(way, report)
            print(f"\n{way}, --seed {given.seed}: {'FAILED' if found else 'all well'}")
            for what, value in report.items():
                print(f"  {what:22} {value}")
            failed = failed or bool(found)
    return int(failed)


#: By the name of a way: whether operators and forks disturb, and whether greenlets take the place of threads.
WAYS = {"threads": (False, False), "greenlets": (False, True), "disturbed": (True, False)}


def stress(server: MariaDB, way: str, seed: int, seconds: float, threads: int) -> dict[str, Any]:
    """Run the program once, on a database of its own, and return its report."""
    disturb, greenlets = WAYS[way]
    name = f"stress_{way}"
    server.create_database(name)
    entry = {**server.database(name), "ENGINE": "poollife.backends.mysql"}
    return run(
        "pool_stress",
        *(entry, seed, seconds, threads, disturb),
        options=["--greenlets"] if greenlets else [],
        limit=seconds + GRACE,
    )


def mistakes(way: str, report: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a report that must be empty and are not."""
    found = {what: report[what] for what in MISTAKES if report[what]}
    # A pool that was closed or made smaller may have sessions out beside those of its successor.
    if way != "disturbed" and report["most at once"] > SIZE + OVERFLOW:
        found["most at once"] = report["most at once"]
    return found


if __name__ == "__main__":
    sys.exit(main())
