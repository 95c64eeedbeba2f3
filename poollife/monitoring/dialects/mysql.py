"""The questions to MySQL and MariaDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from poollife.monitoring.dialects.base import Capacity, Dialect, Finding, Scope, Session, encryption, lifetime

#: The values of ``read_only`` of a server that takes writes; MariaDB 12 has names for the others.
WRITABLE = {"0", "OFF"}
_GRANT = re.compile(r"GRANT (.+) ON \*\.\* TO ")
READ_ONLY_CURE = "Lead the alias to the primary. A replica that only reads are routed to may stay as it is"
PASSES_CURE = (
    "Take {privileges} from the site's user: after a switchover an old primary acknowledges its writes, and "
    "loses them"
)


class MySQL(Dialect):
    """The questions to MySQL and MariaDB."""

    vendor = "mysql"
    port = "3306"
    session_mib = 0.12

    def capacity(self, session: Session) -> Capacity:
        """Implement ``Dialect.capacity()``. ``extra_max_connections`` is for another port, and not asked."""
        identity, allowed, of_user, database, user = session.row(
            "SELECT CONCAT_WS(':', @@hostname, @@port, @@datadir), @@max_connections, @@max_user_connections,"
            " DATABASE(), SUBSTRING_INDEX(USER(), '@', 1)"
        )
        connected = int(_status(session, "Threads_connected")["Threads_connected"])
        # Without the privilege PROCESS, the list has the sessions of this user only: the status has all.
        mine, own = session.row(
            "SELECT COUNT(*), COALESCE(SUM(DB <=> DATABASE()), 0) FROM information_schema.PROCESSLIST"
            " WHERE USER = SUBSTRING_INDEX(USER(), '@', 1)"
        )
        scopes = [Scope("max_connections", int(allowed), connected)]
        if of_user:
            scopes.append(Scope(f"max_user_connections of {user}", int(of_user), int(mine)))
        return Capacity(identity, user, database or "", int(own), scopes)

    def findings(self, session: Session) -> Iterator[Finding]:
        """Implement ``Dialect.findings()``."""
        read_only, port, version = session.row("SELECT @@global.read_only, @@port, VERSION()")
        is_writable = str(read_only).upper() in WRITABLE
        yield role(is_writable)
        yield privileges((str(grant) for (grant,) in session.rows("SHOW GRANTS")), version, is_writable)
        yield from self._way(session, int(port))
        yield encryption(session, _status(session, "Ssl_cipher").get("Ssl_cipher"))
        yield from galera({**_status(session, "wsrep%"), **_variables(session, "wsrep%")})

    def _way(self, session: Session, port: int) -> Iterator[Finding]:
        """Yield what is between the site and the server."""
        proxy = self._proxy(session, port)
        if not proxy:
            peer = session.peer
            way = f"port {port}" if peer else "its socket"
            yield Finding("proxy", "ok", f"none is seen: the server itself answers, at {way}")
            return
        yield Finding("proxy", "ok", proxy)
        yield lifetime(session)
        options = session.wrapper.settings_dict["OPTIONS"] or {}
        if "read_timeout" not in options and "read_default_file" not in options:
            yield Finding(
                "read_timeout",
                "warning",
                "not set, behind a proxy: the proxy's kernel answers for a server that is silent, and "
                "POOL['network_timeout'] does not see it",
                "Set OPTIONS['read_timeout'] to more seconds than the longest statement takes",
            )

    @staticmethod
    def _proxy(session: Session, port: int) -> str | None:
        """Return how the proxy is known, for people; None: none is seen."""
        # ProxySQL answers this very text itself.
        comment = str(session.row("SELECT @@version_comment LIMIT 1")[0])
        if "proxysql" in comment.lower():
            return f"a proxy that reads SQL answers: {comment}"
        (number,) = session.row("SELECT CONNECTION_ID()")
        if int(number) != session.driver.number_at_server():
            return "a proxy that reads SQL answers: the server knows the session by another number"
        if (peer := session.peer) and peer[1] != port:
            return f"a proxy or a forwarded port: port {peer[1]} was called, and the server has port {port}"
        return None


def role(is_writable: bool) -> Finding:
    """Return the finding about the role of the server.

    :param is_writable: False: the server is read-only.
    """
    if is_writable:
        return Finding("role", "ok", "a primary: it takes writes")
    return Finding("role", "warning", "read_only is on: writes fail with error 1290", READ_ONLY_CURE)


def privileges(grants: Iterator[str], version: str, is_writable: bool) -> Finding:
    """Return the finding about privileges that pass ``read_only``.

    :param grants: the rows of ``SHOW GRANTS``.
    :param version: of the server.
    :param is_writable: False: the server is read-only.
    """
    has = {
        privilege.strip().upper()
        for grant in grants
        if (found := _GRANT.match(grant))
        for privilege in found[1].split(",")
    }
    passing = sorted(has & passing_read_only(version))
    if not passing:
        return Finding("privileges", "ok", "none that passes read_only")
    cure = PASSES_CURE.format(privileges=" and ".join(passing))
    if is_writable:
        return Finding("privileges", "warning", f"{', '.join(passing)} would pass read_only", cure)
    text = f"{', '.join(passing)}: writes pass read_only here, and are lost"
    return Finding("privileges", "problem", text, cure)


def passing_read_only(version: str) -> set[str]:
    """Return the privileges with which an account writes although ``read_only`` is on.

    :param version: as ``VERSION()`` has it. MariaDB took this from SUPER in 10.11.
    """
    always = {"ALL PRIVILEGES"}
    if "mariadb" not in version.lower():
        return always | {"SUPER", "CONNECTION_ADMIN"}
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    return always | {"READ_ONLY ADMIN"} | ({"SUPER"} if numbers < (10, 11) else set())


def galera(known: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings about a node of Galera; none for a server that is no node.

    :param known: variables and status whose names begin with ``wsrep``.
    """
    if known.get("wsrep_on", "OFF") != "ON":
        return
    if known.get("wsrep_ready") == "ON":
        yield Finding("Galera", "ok", f"a node of {known.get('wsrep_cluster_size', '?')}, in its cluster")
    else:
        state = known.get("wsrep_local_state_comment", "not known")
        yield Finding(
            "Galera",
            "problem",
            f"the node is out of its cluster (state: {state}): all statements on tables fail with error 1047",
            "Have the proxy check wsrep_ready, so that it leads to other nodes",
        )
    if known.get("wsrep_sync_wait", "0") == "0":
        yield Finding(
            "wsrep_sync_wait",
            "warning",
            "0: the next request may read at another node what this one wrote, and not find it yet",
            "Lead all sessions to one node, or set it to 1 in OPTIONS['init_command'], a wait at each read",
        )


def _status(session: Session, pattern: str) -> dict[str, str]:
    return {name: str(value) for name, value in session.rows(f"SHOW STATUS LIKE '{pattern}'")}


def _variables(session: Session, pattern: str) -> dict[str, str]:
    return {name: str(value) for name, value in session.rows(f"SHOW VARIABLES LIKE '{pattern}'")}
