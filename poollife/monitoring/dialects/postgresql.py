"""The questions to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from poollife.monitoring.dialects.base import Capacity, Dialect, Finding, Scope, Session, encryption, lifetime

#: Sessions that count for max_connections. An ordinary user does not see the type of other users' sessions.
_CLIENTS = (
    "FROM pg_stat_activity WHERE usename IS NOT NULL AND datname IS NOT NULL"
    " AND coalesce(backend_type, 'client backend') = 'client backend'"
)
#: The server's start, which no other server has to the microsecond; the limit of all, of the user, and of the
#: database, each with its sessions now; user, database, and the sessions of both. ``reserved_connections`` is
#: new in PostgreSQL 16.
_CAPACITY = f"""
SELECT
    pg_postmaster_start_time()::text,
    current_setting('max_connections')::integer - (
        SELECT sum(setting::integer) FROM pg_settings
        WHERE name IN ('superuser_reserved_connections', 'reserved_connections')
    ),
    (SELECT count(*) {_CLIENTS}),
    (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user AND NOT rolsuper),
    (SELECT count(*) {_CLIENTS} AND usename = session_user),
    (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
    (SELECT count(*) {_CLIENTS} AND datname = current_database()),
    session_user,
    current_database(),
    (SELECT count(*) {_CLIENTS} AND usename = session_user AND datname = current_database())
"""


class PostgreSQL(Dialect):
    """The questions to PostgreSQL."""

    vendor = "postgresql"
    port = "5432"
    session_mib = 1.7

    def capacity(self, session: Session) -> Capacity:
        """Implement ``Dialect.capacity()``."""
        found = session.row(_CAPACITY)
        identity, allowed, all_now, of_user, user_now, of_database, database_now, user, database, own = found
        scopes = [Scope("max_connections", int(allowed), all_now)]
        # -1: no limit. A superuser passes the limit of a role.
        if of_user is not None and of_user >= 0:
            scopes.append(Scope(f"CONNECTION LIMIT of role {user}", of_user, user_now))
        if of_database >= 0:
            scopes.append(Scope(f"CONNECTION LIMIT of database {database}", of_database, database_now))
        return Capacity(identity, user, database, own, scopes)

    def findings(self, session: Session) -> Iterator[Finding]:
        """Implement ``Dialect.findings()``."""
        recovering, read_only, superuser, port = session.row(
            "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean,"
            " (SELECT rolsuper FROM pg_roles WHERE rolname = session_user), inet_server_port()"
        )
        yield role(recovering, read_only)
        yield privileges(superuser)
        is_proxied = session.driver.is_proxied()
        yield proxy(session, port, is_proxied)
        if session.peer and port and session.peer[1] != port and not is_proxied:
            yield lifetime(session)
        if is_proxied:
            yield Finding("TLS", "ok", "not known: the pooler has two connections, one on each side")
        else:
            encrypted, version, cipher = session.row(
                "SELECT ssl, version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            )
            yield encryption(session, f"{version}, {cipher}" if encrypted else None)


def role(recovering: bool, read_only: bool) -> Finding:
    """Return the finding about the role of the server.

    :param recovering: whether it is a standby.
    :param read_only: whether its transactions are read-only unless they ask for more.
    """
    if recovering:
        return Finding(
            "role",
            "warning",
            "a standby: writes fail",
            "Lead the alias to the primary, or add target_session_attrs=read-write to OPTIONS. A standby "
            "that only reads are routed to may stay as it is",
        )
    if read_only:
        return Finding(
            "role",
            "warning",
            "default_transaction_read_only is on: writes fail",
            "ALTER ROLE or ALTER DATABASE may have set it, or the server's configuration",
        )
    return Finding("role", "ok", "a primary: it takes writes")


def privileges(superuser: bool) -> Finding:
    """Return the finding about the role that logs in.

    :param superuser: whether it is a superuser.
    """
    if not superuser:
        return Finding("privileges", "ok", "no superuser")
    return Finding(
        "privileges",
        "warning",
        "a superuser: the site can take the connections that are reserved for administrators",
        "Let the site log in as a role with NOSUPERUSER",
    )


def proxy(session: Session, port: int | None, is_proxied: bool) -> Finding:
    """Return the finding about what is between the site and the server.

    :param port: as the server says; None: it has been reached through a socket of its host.
    :param is_proxied: whether the server's number of the session is another one than the client was told.
    """
    behind, peer = session.wrapper.pool_options.behind, session.peer
    if is_proxied and not behind:
        return Finding(
            "proxy",
            "warning",
            "a pooler answers, such as PgBouncer: it told another number of the session than the server has",
            "If its pool_mode is transaction, set POOL['behind'] to 'transaction_pooler'. With session it "
            "may stay as it is",
        )
    if is_proxied:
        return Finding("proxy", "ok", f"a pooler answers, and POOL['behind'] is {behind!r}")
    if behind:
        return Finding(
            "proxy",
            "warning",
            f"POOL['behind'] is {behind!r}, and no pooler is seen: sessions are never reset",
            "Leave POOL['behind'] out, if there is no pooler",
        )
    if peer and port and peer[1] != port:
        text = f"a proxy or a forwarded port: port {peer[1]} was called, and the server has port {port}"
        return Finding("proxy", "ok", text)
    way = f"port {port}" if port else "its socket"
    return Finding("proxy", "ok", f"none is seen: the server itself answers, at {way}")
