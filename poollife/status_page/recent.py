"""The counters of the last minute, as far as this process was asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds for which a look at the counters is kept, and between two looks that are.
KEPT, INTERVAL = 60.0, 1.0

Counters = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recent:
    """The growth of an alias's counters, in all processes together."""

    #: Seconds since the look that this is compared with.
    seconds: float
    timeouts: int
    #: Failures to connect since a connection was opened last, as far as that is known.
    failures: int


class Looks:
    """The counters that this process saw in the last minute.

    Synchronization: none. Two looks at the same moment may cost one of them, which then is not compared with.
    """

    def __init__(self) -> None:
        self._seen: tuple[tuple[float, Mapping[str, Counters]], ...] = ()

    def compare(self, counters: Mapping[str, Counters], now: float) -> dict[str, Recent]:
        """Note the counters, and return their growth since the oldest look of the last minute.

        :param counters: those of each alias; they never fall.
        :param now: seconds on the monotonic clock.
        :returns: by alias; an alias that no look has is missing.
        """
        seen = tuple(look for look in self._seen if 0 <= now - look[0] <= KEPT)
        if not seen or now - seen[-1][0] >= INTERVAL:
            self._seen = (*seen, (now, counters))
        if not seen:
            return {}
        at, before = seen[0]
        found = {}
        for alias in before.keys() & counters.keys():
            # The oldest look since which none was opened.
            same = [look[alias] for _, look in seen if _openings(look, alias) == _openings(counters, alias)]
            failures = counters[alias]["connect_errors"] - same[0]["connect_errors"] if same else 0
            timeouts = counters[alias]["timeouts"] - before[alias]["timeouts"]
            found[alias] = Recent(now - at, max(0, timeouts), max(0, failures))
        return found


def _openings(look: Mapping[str, Counters], alias: str) -> int | None:
    return look[alias]["opened"] if alias in look else None
