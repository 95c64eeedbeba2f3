"""Orders of operators to all processes of a site on this host.

They are a state, not events: a process that begins later obeys them, too, and one that was given an order
twice does nothing the second time. ``orders.json`` has the state. The file beside it has only a number, which
each process has in its memory: a checkout compares it with the number of the state that its pool has obeyed.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from poollife import clock
from poollife.board.folder import NoBoard
from poollife.board.past import UNFINISHED, content_of, exclusively
from poollife.board.views import Damaged

#: The state, and the number of its changes.
NAME, NUMBER = "orders.json", "orders"
#: The version of what is in the state.
VERSION = 1
#: The key of the order for aliases that have none of their own.
ALL = "*"
#: Seconds, the longest suspension.
LONGEST_SUSPENSION = 3600.0
#: The sizes that an order may change.
SIZES = ("pool_size", "max_overflow", "core_size", "min_idle")
#: Seconds that an order waits for another one that is being given.
WAIT = 5.0
#: The most bytes that are read of the state.
MOST_BYTES = 1 << 20

_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class Order:
    """The present order for the pools of one alias. Times are in seconds on the monotonic clock."""

    #: The end of a suspension; 0.0: there was none.
    suspended_until: float = 0.0
    #: Sessions that were opened up to then are not used any more.
    renewed: float = 0.0
    #: Sizes that differ from those in the settings.
    sizes: dict[str, int] = field(default_factory=dict)


def number_in(folder: Path) -> memoryview:
    """Return the number of changes of the orders, as it is at any time: its first item.

    :raises OSError: there can't be one.
    """
    descriptor = os.open(folder / NUMBER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        # Not ftruncate(): where the memory has run out, a look into a hole would kill the process.
        os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)
        return memoryview(mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ)).cast("q")
    finally:
        os.close(descriptor)


def order_for(folder: Path, alias: str) -> Order:
    """Return the present order for an alias.

    :raises Damaged: the file has something else in it.
    :raises OSError: it can't be read.
    """
    return present(_read(folder), alias)


def present(orders: Mapping[str, Order], alias: str) -> Order:
    """Return the order for an alias: its own, or that for all."""
    return orders.get(alias) or orders.get(ALL) or Order()


def give(
    folder: Path,
    aliases: Iterable[str],
    change: Callable[[Order], Order],
    check: Callable[[Mapping[str, Order]], None] = lambda orders: None,
) -> int:
    """Change the orders for some aliases; return the number of this change.

    :param folder: of the board.
    :param aliases: keys of ``DATABASES``; ``ALL``: each alias.
    :param change: returns the new order in place of the present one.
    :param check: is called with all orders as they will be; nothing is ordered if it raises.
    :raises OSError: it could not be written.
    :raises NoBoard: another process does not end to write one.
    """
    with exclusively(folder, _turn, WAIT) as alone:
        if not alone:
            raise NoBoard(f"Another process keeps {folder} locked")
        try:
            orders = _read(folder)
        except Damaged:
            orders = {}
        for alias in aliases:
            changed = change(present(orders, alias))
            if alias == ALL:
                orders = {name: change(order) for name, order in orders.items()}
            orders[alias] = changed
        check(orders)
        _write(folder, orders)
        return _count(folder)


def suspended(order: Order, seconds: float) -> Order:
    """Return an order that suspends from now on, for so many seconds."""
    return replace(order, suspended_until=clock.monotonic() + min(seconds, LONGEST_SUSPENSION))


def resumed(order: Order) -> Order:
    """Return an order that ends a suspension."""
    return replace(order, suspended_until=0.0)


def renewed(order: Order, up_to: float) -> Order:
    """Return an order that has sessions replaced.

    :param up_to: those that were opened up to then, in seconds on the monotonic clock.
    """
    return replace(order, renewed=max(order.renewed, up_to))


def resized(order: Order, sizes: dict[str, int]) -> Order:
    """Return an order with other sizes; none: those in the settings."""
    return replace(order, sizes={**order.sizes, **sizes} if sizes else {})


def _read(folder: Path) -> dict[str, Order]:
    try:
        kept = json.loads(content_of(folder / NAME, MOST_BYTES))
        if kept["version"] != VERSION:
            raise ValueError(f"version {kept['version']!r}")
        if kept["boot"] != _boot():
            return {}  # its times are those of another clock
        return {str(alias): _order(each) for alias, each in kept["orders"].items()}
    except FileNotFoundError:
        return {}
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Damaged(f"{NAME} is none of the board's, or of another version: {error!r}") from error


def _order(kept: Any) -> Order:
    order = Order(**kept)
    for time in (order.suspended_until, order.renewed):
        if not math.isfinite(time):
            raise ValueError(f"{time!r} is no time")
    now = clock.monotonic()
    for name, size in order.sizes.items():
        if name not in SIZES or type(size) is not int:
            raise ValueError(f"{name!r}: {size!r} is no size")
    # Whatever is in the file: a suspension ends, and new sessions can be used.
    return replace(
        order,
        suspended_until=min(order.suspended_until, now + LONGEST_SUSPENSION),
        renewed=min(order.renewed, now),
    )


def _write(folder: Path, orders: dict[str, Order]) -> None:
    new = folder / f"{NAME}{UNFINISHED}"
    new.unlink(missing_ok=True)
    with new.open("x") as file:
        file.write(
            json.dumps(
                {
                    "version": VERSION,
                    "boot": _boot(),
                    "orders": {alias: asdict(order) for alias, order in orders.items()},
                }
            )
        )
    new.rename(folder / NAME)


def _count(folder: Path) -> int:
    """Have all processes look at the orders."""
    number: int = (number_in(folder)[0] + 1) % 2**62
    descriptor = os.open(folder / NUMBER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, number.to_bytes(8, sys.byteorder), 0)
    finally:
        os.close(descriptor)
    return number


def _boot() -> str:
    """Return what tells this start of the machine from others: the monotonic clock begins with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
