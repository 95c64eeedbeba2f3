"""Which sessions are handed out, and which are replaced: law 7."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from poollife import clock
from poollife.conf import PoolOptions
from poollife.drivers.contract import Driver, Guarded
from poollife.pools import log
from poollife.pools.outage import Outage
from poollife.pools.tickets import current

#: Seconds; a session older than this is replaced even where the server would keep an idle one for longer.
LONGEST_LIFE = 3600.0
#: The least part of ``recycle`` after which a session is replaced.
SHORTEST_LIFETIME = 0.9
#: Why a session is replaced, for people.
OUTDATED = "opened before the server became read-only"
REFUSED = "opened before the server refused its user"
#: Seconds after which a session that was pinged is taken for dead, at most (HikariCP's validationTimeout) and
#: at least.
LONGEST_PING, SHORTEST_PING = 5.0, 0.5
#: Seconds between two renewals of a pool whose server stays read-only, the first and the longest: the pause
#: doubles. The longest is for how long a primary that was found at last may go unused.
FIRST_RENEWAL_PAUSE, LONGEST_RENEWAL_PAUSE = 1.0, 15.0
#: What each server answered when it was asked how long it keeps idle sessions.
_idle_limits: dict[tuple[Any, ...], float | None] = {}


class Liveness:
    """What one pool knows of its server that tells which of its sessions are alive.

    What happens to one session may have happened to all that were there by then.
    """

    def __init__(
        self,
        alias: str,
        options: PoolOptions,
        driver: Driver,
        outage: Outage,
        replaced: Callable[[str], object],
    ) -> None:
        """
        :param alias: for the log.
        :param replaced: called with the reason, for people.
        """
        self._alias = alias
        self._options = options
        self._driver = driver
        self._outage = outage
        self._replaced = replaced
        #: Seconds after which a session is replaced; None until the server was asked.
        self.recycle: float | None = options.recycle
        #: On the monotonic clock. Sessions born by then are replaced ...
        self.renewed = -math.inf
        #: ... and those that nobody has used since then are pinged before somebody does.
        self._suspected = -math.inf
        #: Sessions born by then do not prove their user again: the server has refused one that did.
        self.refused = -math.inf
        #: When a read-only error renews them again, and the pause that follows; a race costs one renewal.
        self._next_renewal = -math.inf
        self._renewal_pause = FIRST_RENEWAL_PAUSE

    def learn(self, session: Guarded, server: tuple[Any, ...]) -> None:
        """Ask how long idle sessions are kept, if nobody has yet."""
        if self.recycle is None and self._options.pooled:
            if server not in _idle_limits:
                _idle_limits[server] = self._driver.idle_limit(session)
            limit = _idle_limits[server]
            self.recycle = LONGEST_LIFE if limit is None else min(LONGEST_LIFE, 0.9 * limit)

    def is_fit(self, session: Guarded, now: float) -> bool:
        """Return whether a session can be handed out as it is, without a ping. Otherwise ``unfit()`` tells.

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

    def unfit(self, connection: Any) -> str | None:
        """Return why a session can't be handed out, None if it can."""
        session: Guarded = self._driver.unwrap(connection)
        now, reason = clock.monotonic(), None
        if session.born <= self.renewed:
            reason = OUTDATED
        elif self.recycle is not None and 0 <= self.recycle * session.lifetime < now - session.born:
            reason = f"older than recycle ({self.recycle:.0f} s)"
        elif (
            self._options.pre_ping
            or now - session.idle_since > self._options.ping_idle
            or session.idle_since <= self._suspected
            or session.closed_by_server()
        ) and not session.answers(ping_limit(now)):
            # Whatever ended this one may have ended others, without a goodbye in their sockets.
            self._suspect()
            reason = "closed by the server, or out of reach"
        if reason:
            log.note(logging.INFO, "Pool %r replaces a session: %s", self._alias, reason)
            self._replaced(reason)
        return reason

    def note_end(self, session: Guarded) -> None:
        """Do with the others what happened to this one while it was out: replace all, or ping them first.

        :param session: is lost, or found its server read-only.
        """
        if session.failed_over:
            # Should it be kept, its next error counts again, and its next return does not.
            session.failed_over = False
            self._renew(clock.monotonic())
        if session.lost:
            self._suspect()

    def note_refusal(self) -> None:
        """Take the user or password of all present sessions for outdated: the server did not take it.

        They may be used as they are. But to reset each of them would be as many wrong passwords, after which
        a server may block the account.
        """
        self.refused = clock.monotonic()

    def _renew(self, now: float) -> None:
        """Replace all sessions, unless that was done a moment ago and has not helped.

        After a failover new sessions lead to a server that can be written to. Where it is read-only for
        maintenance they lead to the same one, and each failing request would renew the whole pool.
        """
        if now < self._next_renewal:
            return
        if now - self._next_renewal > self._renewal_pause:
            self._renewal_pause = FIRST_RENEWAL_PAUSE  # another failover: all was well for a while
        self._next_renewal = now + self._renewal_pause
        self._renewal_pause = min(2 * self._renewal_pause, LONGEST_RENEWAL_PAUSE)
        self.renewed = now
        log.note(logging.WARNING, "Pool %r replaces all its sessions: their server is read-only", self._alias)

    def _suspect(self) -> None:
        self._suspected = clock.monotonic()
        self._outage.doubt()


def ping_limit(now: float) -> float:
    """Seconds that a session has to answer: no more than its borrower has left, as far as that goes."""
    ticket = current.checkout
    left = ticket.deadline - now if ticket else LONGEST_PING
    return max(SHORTEST_PING, min(LONGEST_PING, left))
