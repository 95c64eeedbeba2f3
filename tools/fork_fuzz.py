"""Fork a busy process at random moments, and count the harm: ``make fuzz``.

The exit status is 0 if there was none. To look for a failure again, pass its ``--seed``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from servers import Certificates, PrivateServer
from tests.support.processes import SERVERS, entry
from tests.support.programs.running import run

#: The longest time of one fork, in seconds, with all the work around it.
PATIENCE = 2.0


def main() -> int:
    """Run the program once for each way to the server, and print the reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--forks", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--via", nargs="+", choices=["tcp", "tls", "socket"], default=["tcp", "tls"])
    parser.add_argument("--database", choices=SERVERS, default="mysql")
    given = parser.parse_args()
    kind = SERVERS[given.database]
    with tempfile.TemporaryDirectory() as folder, kind(certificates=Certificates(Path(folder))) as server:
        harmed = [
            tell(via, given.seed, fuzz(server, via, given.seed, given.forks, given.threads))
            for via in given.via
        ]
    return int(any(harmed))


def fuzz(server: PrivateServer, via: Any, seed: int, forks: int, threads: int) -> dict[str, Any]:
    """Run the program on a database of its own."""
    name = f"fuzz_{via}"
    server.create_database(name)
    database = entry(server, name, via=via)
    return run("fork_fuzz", database, seed, forks, threads, "", limit=60 + PATIENCE * forks)


def tell(via: str, seed: int, report: dict[str, Any]) -> bool:
    """Print a report, and return whether there was harm."""
    print(f"\n{via}, --seed {seed}")
    for what, value in report.items():
        print(f"  {what:30} {value if value != [] else 0}")
    return harm(report) != {}


def harm(report: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a report that must be empty and are not."""
    harmless = ("forks", "children", "steps", "ms in the parent's handlers")
    return {what: value for what, value in report.items() if what not in harmless and value}


if __name__ == "__main__":
    sys.exit(main())
