"""A file as a user would write it, for type checkers: ``make release-check`` has mypy and pyright read it.

It is not run. Each ``assert_type`` is an error where a checker sees another type, such as ``Any``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, assert_type

from poollife import (
    PooledThread,
    PooledThreadPoolExecutor,
    PoolTimeout,
    auto_close_db,
    close_pool,
    drain_pool,
    pool_stats,
)
from poollife.asgi import PoolASGIMiddleware
from poollife.errors import Hold


@auto_close_db
def count(number: int) -> str:
    return str(number)


@auto_close_db()
def numbers(most: int) -> Iterator[int]:
    yield from range(most)


@auto_close_db
async def later(number: int) -> str:
    return str(number)


@auto_close_db
async def later_numbers(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


class Reminders:
    @auto_close_db
    def send(self, to: str) -> int:
        return len(to)


async def application(scope: Any, receive: Any, send: Any) -> None:
    async with auto_close_db():
        assert_type(await later(1), str)


def work() -> None:
    assert_type(count(1), str)
    assert_type(numbers(3), Iterator[int])
    # The checkers have classes of their own for what an async function returns.
    coroutine: Coroutine[Any, Any, str] = later(1)
    coroutine.close()
    assert_type(later_numbers(3), AsyncIterator[int])
    assert_type(Reminders().send("a"), int)
    with auto_close_db(), PooledThreadPoolExecutor(max_workers=2) as executor:
        assert_type(executor.submit(count, 1), Future[str])
    PooledThread(target=count, args=(1,)).start()
    try:
        assert_type(pool_stats()["default"]["out"], int)
        assert_type(drain_pool("default", timeout=1.5), bool)
        close_pool()
    except PoolTimeout as error:
        assert_type(error.holders, tuple[Hold, ...])
        assert_type(error.summary, str)


site = PoolASGIMiddleware(application, warm=2)
