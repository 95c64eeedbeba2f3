"""Answer a load balancer's health checks with the role of a database server.

It runs beside the server: ``python role_agent.py --mysql --port 3306 --listen 0.0.0.0:9201``. HAProxy's own
checks of MySQL and PostgreSQL only say whether a server answers. A replica answers, too, and so does a Galera
node that has lost its cluster.

    GET /primary    200 if the server takes writes
    GET /replica    200 if it only reads
    GET /galera     200 if it is a Galera node in its cluster, and has all data

All other answers are 503, with the reason. The user and the password are in the environment: AGENT_USER,
AGENT_PASSWORD. The user needs no privilege but that to log in (PostgreSQL: to the database "postgres").
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Seconds for the server's answer. A health check of HAProxy ends after ``timeout check``.
LIMIT = 1


def mysql(host: str, port: int) -> dict[str, bool]:
    """Ask MySQL or MariaDB, and return the answers to the paths, by their names."""
    import MySQLdb

    connection = MySQLdb.connect(
        host=host,
        port=port,
        user=os.environ["AGENT_USER"],
        password=os.environ["AGENT_PASSWORD"],
        connect_timeout=LIMIT,
        read_timeout=LIMIT,
    )
    with closing(connection), closing(connection.cursor()) as cursor:
        cursor.execute("SELECT @@global.read_only, @@global.innodb_read_only")
        read_only = any(str(each).upper() not in ("0", "OFF") for each in cursor.fetchone())
        cursor.execute("SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state')")
        galera = dict(cursor.fetchall())
    in_cluster = galera.get("wsrep_ready") == "ON" and galera.get("wsrep_local_state") == "4"
    return {"primary": not read_only, "replica": read_only, "galera": in_cluster}


def postgresql(host: str, port: int) -> dict[str, bool]:
    """Ask PostgreSQL, and return the answers to the paths, by their names."""
    import psycopg

    connection = psycopg.connect(
        host=host,
        port=port,
        user=os.environ["AGENT_USER"],
        password=os.environ["AGENT_PASSWORD"],
        dbname="postgres",
        connect_timeout=2,  # libpq takes 1 for 2
        autocommit=True,
    )
    with closing(connection):
        row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    read_only = bool(row and row[0])
    return {"primary": not read_only, "replica": read_only, "galera": False}


def handler(ask: Callable[[], dict[str, bool]]) -> type[BaseHTTPRequestHandler]:
    """Return the class that answers requests.

    :param ask: asks the server.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                good, text = ask().get(self.path.strip("/"), False), ""
            except Exception as error:  # the driver's, whatever its name is
                good, text = False, f"{type(error).__name__}: {error}"
            body = f"{'yes' if good else text or 'no'}\n".encode(errors="replace")
            self.send_response(200 if good else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Write nothing: a check comes twice a second."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--mysql", action="store_const", const=mysql, dest="ask")
    kind.add_argument("--postgresql", action="store_const", const=postgresql, dest="ask")
    parser.add_argument("--host", default="127.0.0.1", help="of the database server")
    parser.add_argument("--port", type=int, required=True, help="of the database server")
    parser.add_argument("--listen", default="127.0.0.1:9201", help="address and port of the answers")
    given = parser.parse_args()
    address, _, port = given.listen.rpartition(":")
    ask = partial(given.ask, given.host, given.port)
    ThreadingHTTPServer((address, int(port)), handler(ask)).serve_forever()


if __name__ == "__main__":
    main()
