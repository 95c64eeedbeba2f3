"""The numbers of this process since it began, from its part of the board."""

from __future__ import annotations

from functools import partial

from poollife.board import past
from poollife.board.page import page
from poollife.board.views import Totals


def own_totals() -> dict[str, Totals]:
    """Return the counters of this process by alias, those of pools that are gone included.

    They begin at 0 with the process, and never fall. Without a board they are those of the pools that are
    there.
    """
    # Imported here: `import poollife` needs no settings and no Django app.
    from poollife.pools.live import live_pools
    from poollife.process.atfork import at_fork

    at_fork.ensure_process()
    totals: dict[str, Totals] = {}
    if page.folder is None:
        for pool in live_pools.strong_references():
            alias = pool.key.alias
            totals[alias] = totals.get(alias, Totals.none()).plus(Totals.of(pool.cells))
    for file in page.memories():
        past.add_up(totals, past.settled(partial(bytes, file)))
    return totals
