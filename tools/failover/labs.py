"""The servers of the lab: a primary with a replica, or a Galera cluster, behind HAProxy."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Self

from servers import MariaDB, PostgreSQL, PrivateServer
from servers.galera import GaleraNode
from servers.haproxy import Behaviour, HAProxy, Target
from servers.postgresql import REPLICATES
from servers.role_agent import RoleAgent
from tests.support.web_server import eventually

#: The database of the site, its tables, and its user, who has no privilege to write past ``read_only``.
DATABASE, SITE = "lab", "site"
TABLES = ("CREATE TABLE few (n INT)", "CREATE TABLE written (id {serial} PRIMARY KEY, marker VARCHAR(100))")
#: The check of HAProxy that only asks whether a MySQL server answers.
MYSQL_CHECK = ("option mysql-check user haproxy",)


class Lab(ABC):
    """Servers behind a HAProxy, as a context manager."""

    #: "mysql" or "postgresql".
    kind: ClassVar[str]
    check: ClassVar[Sequence[str]] = ("option httpchk GET /primary",)

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        """
        :param behaviour: of the proxy. Without a check of its own it has that of the lab.
        """
        how = behaviour or Behaviour()
        self.behaviour = how if how.check else replace(how, check=self.check)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.servers = self._start(stack)
            agents = [stack.enter_context(RoleAgent(server)) for server in self.servers]
            asks = any("httpchk" in line for line in self.behaviour.check)
            targets = [
                Target(f"s{number}", server.port, agent.port if asks else None)
                for number, (server, agent) in enumerate(zip(self.servers, agents, strict=True))
            ]
            self.proxy = stack.enter_context(HAProxy(targets, self.behaviour))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:  # it may have been stopped
            if server.pid:
                os.kill(server.pid, signal.SIGCONT)
        self._stack.close()

    @abstractmethod
    def _start(self, stack: ExitStack) -> list[Any]:
        """Start the servers, with the tables and the user, and return them. The first takes writes."""

    def _make_tables(self, server: PrivateServer, serial: str) -> None:
        for table in TABLES:
            server.execute(table.format(serial=serial), database=DATABASE)

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of the site's DATABASES that leads to the proxy."""
        entry = self.servers[0].database(DATABASE)
        return {
            **entry,
            "USER": SITE,
            "PASSWORD": SITE,
            "PORT": str(self.proxy.port),
            # docs/behind-a-proxy.md recommends it.
            "OPTIONS": {**entry["OPTIONS"], "connect_timeout": 3},
        }

    def entry_of_hosts(self, *servers: PrivateServer) -> dict[str, Any]:
        """Return the entry that lists these servers, past the proxy."""
        if self.kind == "postgresql":
            ports = ",".join(str(each.port) for each in servers)
            return {**self.entry, "HOST": ",".join(each.host for each in servers), "PORT": ports}
        return {**self.entry, "HOST": ",".join(f"{each.host}:{each.port}" for each in servers), "PORT": ""}

    def rows(self, server: PrivateServer) -> dict[str, int]:
        """Return the number of rows that a server has, by their text."""
        return dict(server.execute("SELECT marker, COUNT(*) FROM written GROUP BY marker", database=DATABASE))

    def pause(self, server: PrivateServer) -> None:
        """Have a server hang. Its kernel, and the proxy's, still answer."""
        assert server.pid
        os.kill(server.pid, signal.SIGSTOP)

    def opened(self) -> int:
        """Return the number of connections that the site has opened."""
        return self.proxy.opened

    def wait_for_proxy(self, *names: str) -> None:
        """Wait until the check of just these targets passes."""
        eventually(
            f"of the proxy's targets just these are up: {', '.join(names)}",
            lambda: {each.name for each in self.proxy.targets if self.proxy.is_up(each.name)} == set(names),
        )


class Pair(Lab):
    """A primary and a replica."""

    primary: Any
    replica: Any

    @abstractmethod
    def promote(self) -> None:
        """Have the replica take writes."""

    @abstractmethod
    def demote(self) -> None:
        """Have the primary take no more writes, in an orderly way: the replica has all of them then."""


class MariaDBPair(Pair):
    """Two MariaDB servers. The primary waits for the replica (semi-synchronous replication)."""

    kind = "mysql"

    def _start(self, stack: ExitStack) -> list[MariaDB]:
        options = ("--log-bin", "--sync-binlog=0", "--binlog-format=ROW", "--log-slave-updates")
        self.primary, self.replica = (
            stack.enter_context(MariaDB(options=[*options, f"--server-id={number}"])) for number in (1, 2)
        )
        for server in (self.primary, self.replica):
            server.execute("RESET MASTER")  # without the users, which each server makes as it starts
        _make_site(self.primary)
        self._make_tables(self.primary, "INT AUTO_INCREMENT")
        self.replica.execute("SET GLOBAL rpl_semi_sync_slave_enabled = ON")
        self.replica.execute(
            f"CHANGE MASTER TO MASTER_HOST = '{self.primary.host}', MASTER_PORT = {self.primary.port},"
            f" MASTER_USER = '{MariaDB.user}', MASTER_PASSWORD = '{MariaDB.password}',"
            " MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1"
        )
        self.replica.execute("START SLAVE")
        self.replica.execute("SET GLOBAL read_only = ON")
        eventually("the replica has the tables", lambda: self._has_tables(self.replica))
        self.primary.execute("SET GLOBAL rpl_semi_sync_master_enabled = ON")
        return [self.primary, self.replica]

    def _has_tables(self, server: MariaDB) -> bool:
        sql = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"
        return server.execute(sql, DATABASE) == [(len(TABLES),)]

    def promote(self) -> None:
        # The relay log has what the primary has sent. This waits until all of it is applied.
        self.replica.execute("STOP SLAVE IO_THREAD")
        eventually("all is applied", self._all_applied)
        self.replica.execute("STOP SLAVE")
        self.replica.execute("SET GLOBAL read_only = OFF")

    def _all_applied(self) -> bool:
        import MySQLdb.cursors

        connection = MySQLdb.connect(
            unix_socket=str(self.replica.socket), user="root", cursorclass=MySQLdb.cursors.DictCursor
        )
        with connection.cursor() as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            row = cursor.fetchone()
        connection.close()
        return bool(
            row["Master_Log_File"] == row["Relay_Master_Log_File"]
            and row["Read_Master_Log_Pos"] == row["Exec_Master_Log_Pos"]
        )

    def demote(self) -> None:
        self.primary.execute("SET GLOBAL read_only = ON")
        ((position,),) = self.primary.execute("SELECT @@gtid_binlog_pos")
        ((waited,),) = self.replica.execute(f"SELECT MASTER_GTID_WAIT('{position}', 10)")
        assert waited == 0, "the replica lags"


def _make_site(server: MariaDB) -> None:
    server.create_database(DATABASE)
    server.execute(f"CREATE USER {SITE}@'%' IDENTIFIED BY '{SITE}'")
    server.execute(f"GRANT ALL ON {DATABASE}.* TO {SITE}@'%'")
    server.execute("CREATE USER haproxy@'%'")


class PostgreSQLPair(Pair):
    """A primary and a synchronous standby."""

    kind = "postgresql"

    def _start(self, stack: ExitStack) -> list[PostgreSQL]:
        options = (*REPLICATES, "--synchronous_commit=on")
        self.primary = stack.enter_context(PostgreSQL(options=options))
        self.primary.execute(f"CREATE ROLE {SITE} LOGIN PASSWORD '{SITE}'")
        self.primary.create_database(DATABASE)
        self._make_tables(self.primary, "SERIAL")
        for sql in (
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {SITE}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {SITE}",
        ):
            self.primary.execute(sql, database=DATABASE)
        self.replica = stack.enter_context(self.primary.standby())
        self.primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.primary.execute("SELECT pg_reload_conf()")
        sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        eventually("the standby follows", lambda: self.primary.execute(sql) == [(1,)])
        return [self.primary, self.replica]

    def promote(self) -> None:
        assert self.replica.execute("SELECT pg_promote()") == [(True,)]

    def demote(self) -> None:
        # PostgreSQL has no order for that. As cluster managers do it, the server is stopped. It waits for
        # the standby.
        self.primary.halt()


class GaleraCluster(Lab):
    """Three nodes, each of which takes writes."""

    kind = "mysql"
    check = ("option httpchk GET /galera",)

    def _start(self, stack: ExitStack) -> list[GaleraNode]:
        nodes: list[GaleraNode] = []
        for number in (1, 2, 3):
            node = GaleraNode(nodes, options=[f"--server-id={number}"])
            nodes.append(stack.enter_context(node))
        _make_site(nodes[0])
        self._make_tables(nodes[0], "INT AUTO_INCREMENT")
        return nodes
