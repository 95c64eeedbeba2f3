"""Invariant 2 for ``with auto_close_db():`` and ``async with``: what is true of blocks alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from poollife import auto_close_db
from tests.conftest import MakeAlias
from tests.support.borrowing import PATIENCE, Failure, connection_id, out
from tests.support.forms import Body, block, every_kind

pytestmark = pytest.mark.usefixtures("_nothing_stays_current")


def test_a_block_is_for_one_at_a_time(alias: str) -> None:
    around = auto_close_db()
    refused = []

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="in use already"):
            around.__enter__()
        refused.append(True)

    with around:
        before = connection_id(alias)
        with pytest.raises(RuntimeError, match="in use already"), around:
            raise AssertionError("not reached")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(PATIENCE)
        assert (refused, out(alias), connection_id(alias)) == ([True], 1, before)
    assert out(alias) == 0
    with around:  # and another after it
        connection_id(alias)
    assert out(alias) == 0


def test_so_is_an_asynchronous_one(alias: str) -> None:
    async def main() -> None:
        around = auto_close_db()
        async with around:
            before = await sync_to_async(connection_id)(alias)
            with pytest.raises(RuntimeError, match="in use already"):
                async with around:
                    raise AssertionError("not reached")
            assert (out(alias), await sync_to_async(connection_id)(alias)) == (1, before)
        assert out(alias) == 0

    asyncio.run(main())


ORDERS = pytest.mark.parametrize("ends", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]])


@every_kind
@ORDERS
def test_blocks_may_end_in_any_order(
    make_pool: Callable[[], str], form: Callable[[Body], Any], ends: list[int]
) -> None:
    """Those of generators that are not decorated themselves. What is borrowed later is the caller's own."""
    aliases, of_caller = [make_pool() for _ in range(3)], make_pool()

    def steps(alias: str) -> Iterator[None]:
        with auto_close_db():
            connection_id(alias)
            yield

    def consume() -> None:
        running = [steps(alias) for alias in aliases]
        for each in running:
            next(each)
        for index in ends:
            assert out(aliases[index]) == 1
            next(running[index], None)
            assert out(aliases[index]) == 0
        connection_id(of_caller)

    form(consume)
    assert out(of_caller) == 0


@ORDERS
def test_so_may_asynchronous_ones(make_pool: Callable[[], str], ends: list[int]) -> None:
    aliases, of_caller = [make_pool() for _ in range(3)], make_pool()

    async def steps(alias: str) -> AsyncIterator[None]:
        async with auto_close_db():
            await sync_to_async(connection_id)(alias)
            yield

    @auto_close_db
    async def consume() -> None:
        running = [aiter(steps(alias)) for alias in aliases]
        for each in running:
            await anext(each)
        for index in ends:
            assert out(aliases[index]) == 1
            await anext(running[index], None)
            assert out(aliases[index]) == 0
        await sync_to_async(connection_id)(of_caller)

    asyncio.run(consume())
    assert out(of_caller) == 0


def test_a_block_that_outlasts_the_one_around_it_gives_back_what_it_borrows_then(
    make_pool: Callable[[], str],
) -> None:
    before, after = make_pool(), make_pool()
    outer, inner = auto_close_db(), auto_close_db()
    outer.__enter__()
    with inner:
        connection_id(before)
        outer.__exit__(None, None, None)
        connection_id(after)
        assert (out(before), out(after)) == (1, 1)
    assert (out(before), out(after)) == (0, 0)


def test_a_block_hides_no_error_and_binds_nothing(alias: str) -> None:
    bound: list[None] = []

    def enter() -> None:
        with auto_close_db() as what:
            bound.append(what)
            connection_id(alias)
            raise Failure

    with pytest.raises(Failure):
        enter()
    assert (bound, out(alias)) == ([None], 0)


def test_the_wait_for_a_connection_ends_by_naming_the_work(make_alias: MakeAlias) -> None:
    alias = make_alias(POOL={"pool_size": 1, "max_overflow": 0, "timeout": 0})
    said = []

    def wait() -> None:
        with pytest.raises(Exception, match="No connection of pool") as caught:
            connection_id(alias)
        said.append(str(caught.value))

    def ask_elsewhere() -> None:
        connection_id(alias)
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(PATIENCE)

    auto_close_db(ask_elsewhere)()
    block(ask_elsewhere)
    auto_close_db(partial(ask_elsewhere))()
    assert "ask_elsewhere in thread MainThread" in said[0]
    assert "a block in block in thread MainThread" in said[1]
    assert "ask_elsewhere in thread MainThread" in said[2]
