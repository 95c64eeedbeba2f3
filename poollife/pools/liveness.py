"""The rules by which a checkout gets an idle session, or a new one in its place: invariant 7."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from poollife import clock
from poollife.conf import PoolOptions
from poollife.drivers.contract import Driver, Guarded
from poollife.errors import UselessSession, WrongRole
from poollife.pools import log
from poollife.pools.outage import Outage
from poollife.pools.tickets import current

#: Seconds, the highest ``recycle`` if the settings have none, even if the server keeps idle sessions longer.
LONGEST_LIFE = 3600.0
#: The least part of ``recycle`` after which a session is replaced.
SHORTEST_LIFETIME = 0.9
#: Reasons to replace a session, for people.
OUTDATED = "opened before the pool was renewed"
DEAD = "closed by the server, or out of reach"
REFUSED = "opened before the server refused its user"
#: Seconds after which a session that was pinged is taken for dead, at most (HikariCP's validationTimeout) and
#: at least.
LONGEST_PING, SHORTEST_PING = 5.0, 0.5
#: Seconds between two renewals of a pool whose server stays read-only, the first and the longest: the pause
#: doubles. For the longest pause, a primary that is reachable again may stay unused.
FIRST_RENEWAL_PAUSE, LONGEST_RENEWAL_PAUSE = 1.0, 15.0
#: Seconds after which a session is asked for the role of its server, with ``POOL["role"]``.
ROLE_INTERVAL = 2.0
#: Seconds for which each server keeps idle sessions, as it has answered; None: without a limit.
_idle_limits: dict[tuple[Any, ...], float | None] = {}


class Liveness:
    """The facts by which one pool decides which of its sessions are alive.

    An event that ended one session may have ended all sessions that were open then.
    """

    def __init__(
        self,
        alias: str,
        options: PoolOptions,
        driver: Driver,
        server: tuple[Any, ...],
        outage: Outage,
        replaced: Callable[[str], object],
    ) -> None:
        """
        :param alias: for the log.
        :param server: the key of what is known of the server.
        :param replaced: called for each session that is replaced, with the reason for people.
        """
        self._alias = alias
        self._options = options
        self._driver = driver
        self._server = server
        self._outage = outage
        self._replaced = replaced
        #: Seconds after which a session is replaced; None until the server was asked.
        self.recycle: float | None = options.recycle
        #: A time on the monotonic clock, like the next three: sessions opened up to then are replaced.
        self.renewed = -math.inf
        #: Sessions that were not used since then are pinged before they are lent.
        self._suspected = -math.inf
        #: Sessions opened up to then are not reset, as a reset logs in again: the server has refused a login.
        self.refused = -math.inf
        #: From then on a read-only error renews the sessions again; and the pause that follows. A race of two
        #: threads costs one renewal.
        self._next_renewal = -math.inf
        self._renewal_pause = FIRST_RENEWAL_PAUSE

    def learn(self, session: Guarded) -> None:
        """Ask the server how long it keeps idle sessions, if that is not known yet, and set ``recycle``.

        :param session: to ask by.
        """
        if self.recycle is None and self._options.pooled:
            if self._server not in _idle_limits:
                _idle_limits[self._server] = self._driver.idle_limit(session)
            limit = _idle_limits[self._server]
            self.recycle = LONGEST_LIFE if limit is None else min(LONGEST_LIFE, 0.9 * limit)

    def fault_of(self, session: Guarded, in_doubt: bool) -> UselessSession | WrongRole | None:
        """Return the error because of which a new session can't be lent; None: there is none.

        :param in_doubt: whether it has to answer a ping.
        """
        # The texts have no alias: the pools of all aliases that lead to the server share the error.
        outage, waits = self._outage, self._options.waits_for_primary
        has_role = session.has_role("primary", LONGEST_PING) if waits else True
        if has_role is None or (in_doubt and not session.answers(LONGEST_PING)):
            return UselessSession(
                f"{outage.name} has accepted the login, and answers no statement. It hangs, or has lost its "
                f"cluster: see docs/failover.md"
            )
        if has_role:
            outage.role_found()
        elif not outage.accepts_any_role:
            return WrongRole(
                f"{outage.name} takes no writes, and POOL['role'] is 'primary'. Have its address lead to the "
                f"primary: see docs/failover.md"
            )
        return None

    def note_opening(self, session: Guarded) -> None:
        """Note that a session was opened."""
        if self._options.role:
            session.expect(self._options.role)

    def is_fit(self, session: Guarded, now: float) -> bool:
        """Return whether a session can be lent without a ping. If not, ``reason_to_replace()`` decides.

        :param now: on the monotonic clock.
        """
        idle_since, recycle = session.idle_since, self.recycle
        return not (
            session.born <= self.renewed
            or idle_since <= self._suspected
            or now - idle_since > self._options.ping_idle
            or self._options.pre_ping
            or (recycle is not None and 0 <= recycle * session.lifetime < now - session.born)
            or session.closed_by_server()
        )

    def reason_to_replace(self, connection: Any) -> str | None:
        """Return the reason why a session can't be lent, None if it can. Pings the session if need be."""
        session: Guarded = self._driver.unwrap(connection)
        now = clock.monotonic()
        if self.is_fit(session, now):
            return None
        if session.born <= self.renewed:
            reason = OUTDATED
        elif self.recycle is not None and 0 <= self.recycle * session.lifetime < now - session.born:
            reason = f"older than recycle ({self.recycle:.0f} s)"
        elif (answer := self._ask(session, now)) is None:
            return None
        else:
            reason = answer
        log.note(
            logging.INFO,
            "Pool %r replaces a session: %s",
            self._alias,
            reason,
            alias=self._alias,
            session=session.session,
        )
        self._replaced(reason)
        return reason

    def _ask(self, session: Guarded, now: float) -> str | None:
        """Ping a session; return the reason why it can't be lent, None if it can."""
        if session.answers(ping_limit(now)):
            return None
        # The event that ended this session may have ended others, and their sockets may not show it.
        self._suspect()
        return DEAD

    def note_return(self, session: Guarded) -> None:
        """Note the role of a server that reports it. Called at a return while any role is accepted."""
        if session.has_role("primary", 0.0):
            self._outage.role_found()

    def note_end(self, session: Guarded) -> None:
        """Note what happened to a session while it was borrowed: then all are replaced, or pinged first.

        :param session: it is lost, has found its server read-only or promoted, or has added a type.
        """
        if session.failed_over:
            # If the session is kept, its next error counts again, and its next return does not.
            session.failed_over = False
            self._renew(clock.monotonic())
        if session.has_new_types:
            session.has_new_types = False
            self.renewed = clock.monotonic()
            text = "Pool %r replaces all its sessions: a type was added that they may not know"
            log.note(logging.INFO, text, self._alias, alias=self._alias)
        if session.lost:
            self._suspect()

    def note_refusal(self) -> None:
        """Take the user or password of all present sessions for outdated: the server has refused it.

        The sessions may be used as they are. But each reset would send a wrong password, and after several of
        them a server may block the account.
        """
        self.refused = clock.monotonic()

    def _renew(self, now: float) -> None:
        """Replace all sessions, unless that was done a moment ago and has not helped.

        After a failover new sessions lead to a server that can be written to. If the server is read-only for
        maintenance, they lead to the same server, and each failing request would renew the whole pool.
        """
        if now < self._next_renewal:
            return
        if now - self._next_renewal > self._renewal_pause:
            self._renewal_pause = FIRST_RENEWAL_PAUSE  # another failover, after a while without errors
        self._next_renewal = now + self._renewal_pause
        self._renewal_pause = min(2 * self._renewal_pause, LONGEST_RENEWAL_PAUSE)
        self.renewed = now
        text = "Pool %r replaces all its sessions: their server has become read-only, or was promoted"
        log.note(logging.WARNING, text, self._alias, alias=self._alias)

    def _suspect(self) -> None:
        self._suspected = clock.monotonic()
        self._outage.doubt()


class RoleLiveness(Liveness):
    """The liveness of a pool with ``POOL["role"]`` whose sessions have to be asked for it.

    Nothing else shows that the primary behind a session has become a replica: it goes on to answer reads.
    """

    def note_opening(self, session: Guarded) -> None:
        session.role_seen = session.born

    def is_fit(self, session: Guarded, now: float) -> bool:
        return now - session.role_seen <= ROLE_INTERVAL and super().is_fit(session, now)

    def note_return(self, session: Guarded) -> None:
        pass  # asked at a checkout

    def note_end(self, session: Guarded) -> None:
        if self._options.role == "replica":
            session.failed_over = False  # a replica has refused a write, as it should
        super().note_end(session)

    def _ask(self, session: Guarded, now: float) -> str | None:
        assert self._options.role
        answer = session.has_role(self._options.role, ping_limit(now))
        if answer is None:
            self._suspect()
            return DEAD
        session.role_seen = now
        if not answer:
            self._renew(now)
        else:
            self._outage.role_found()
        # While new sessions lead to a server with the wrong role, too, it serves what it can.
        return OUTDATED if session.born <= self.renewed else None


def ping_limit(now: float) -> float:
    """Return the seconds in which a session has to answer a ping.

    No more than its checkout has left, within the limits of ``SHORTEST_PING`` and ``LONGEST_PING``.
    """
    ticket = current.checkout
    left = ticket.deadline - now if ticket else LONGEST_PING
    return max(SHORTEST_PING, min(LONGEST_PING, left))
