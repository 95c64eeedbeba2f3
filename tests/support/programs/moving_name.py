"""A server whose name moves to another address while it is away.

To be run in a mount namespace of its own, where it has a file of hosts of its own: the C library reads that
before it asks a name server.

Argument: the entry of DATABASES, which leads to a server.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connections

from poollife import auto_close_db, pool_stats
from servers.proxy import Proxy
from tests.support.programs.databases import ask, set_up
from tests.support.web_server import eventually

NAME = "db.poollife.test"
THREADS = 4
REQUESTS = 40


@auto_close_db
def request() -> str | None:
    """Query; return the error."""
    try:
        ask("SELECT 1")
    except DatabaseError as error:
        return str(error)
    return None


def requests(executor: ThreadPoolExecutor) -> list[str | None]:
    """Query so many times, by some threads; return the errors."""
    asked = [executor.submit(request) for _ in range(REQUESTS)]
    return [each.result() for each in asked]


def main() -> None:
    logging.getLogger("poollife").addHandler(logging.NullHandler())
    entry: dict[str, Any] = json.loads(sys.argv[1])
    server = entry["HOST"], int(entry["PORT"])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS + 1) as executor:
        hosts = Path(folder, "hosts")
        hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
        subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        with Proxy(*server) as before, Proxy(*server, listens=("127.0.0.2", before.port)) as after:
            pool = {"pool_size": THREADS, "max_overflow": 0, "timeout": 60, "outage_wait": 30}
            set_up({"default": {**entry, "HOST": NAME, "PORT": str(before.port), "POOL": pool}})
            errors = requests(executor)
            with before.dropped():
                later = executor.submit(requests, ThreadPoolExecutor(THREADS))
                eventually("an attempt has failed", lambda: pool_stats()["default"]["connect_errors"] > 0)
                hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
                errors += later.result()
                stats = pool_stats()["default"]
            connections.close_all()
            print(
                json.dumps(
                    {
                        "errors": [each for each in errors if each],
                        "requests": len(errors),
                        "moved": len(after.accepted) == stats["opened"] - len(before.accepted) > 0,
                    }
                )
            )
        subprocess.run(["umount", "/etc/hosts"], check=True)


if __name__ == "__main__":
    main()
