"""Generators and asynchronous generators under ``auto_close_db``, driven alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from asgiref.sync import sync_to_async

from poollife import auto_close_db
from poollife.work import current_work
from tests.support.borrowing import PATIENCE, out


class Sync:
    """Drives generators, in the calling thread."""

    bodies: ClassVar[dict[str, Callable[..., Any]]] = {}
    stop: type[Exception] = StopIteration

    @classmethod
    def body(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate a body with ``auto_close_db``; ``begin()`` finds it by its name."""
        cls.bodies[function.__name__.removesuffix("_async")] = wrapped = auto_close_db(function)
        return wrapped

    def begin(self, name: str, *arguments: Any) -> Any:
        return self.bodies[name](*arguments)

    def next(self, steps: Any) -> Any:
        return next(steps)

    def send(self, steps: Any, value: Any) -> Any:
        return steps.send(value)

    def throw(self, steps: Any, error: Any) -> Any:
        return steps.throw(error)

    def close(self, steps: Any) -> None:
        steps.close()

    def exhaust(self, steps: Any) -> None:
        assert list(steps)

    def break_off(self, held: list[Any]) -> None:
        """Leave the generator that this list holds, and drop it."""
        for _ in held[0]:
            break
        held.clear()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what borrows."""
        return function(*arguments)

    def consume(self, consumer: Callable[[], None]) -> None:
        """Run the consumer as work of its own."""
        auto_close_db(consumer)()

    def check_returned(self, alias: str) -> None:
        assert out(alias) == 0

    def end(self) -> None:
        """Nothing of the kind is left."""


class Async(Sync):
    """Drives asynchronous generators in one loop. Their sync code runs in another thread."""

    bodies: ClassVar[dict[str, Callable[..., Any]]] = {}
    stop = StopAsyncIteration

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def next(self, steps: Any) -> Any:
        return self._wait(anext, steps)

    def send(self, steps: Any, value: Any) -> Any:
        return self._wait(steps.asend, value)

    def throw(self, steps: Any, error: Any) -> Any:
        return self._wait(steps.athrow, error)

    def close(self, steps: Any) -> None:
        self._wait(steps.aclose)

    def close_in_another_task(self, steps: Any) -> None:
        async def wait() -> None:
            await asyncio.create_task(steps.aclose())

        self._runner.run(wait())

    def exhaust(self, steps: Any) -> None:
        async def iterate() -> None:
            assert [step async for step in steps]

        self._runner.run(iterate())

    def break_off(self, held: list[Any]) -> None:
        async def iterate() -> None:
            async for _ in held[0]:
                break
            held.clear()  # while the loop runs, which closes it

        self._runner.run(iterate())

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._wait(sync_to_async(function), *arguments)

    def consume(self, consumer: Callable[[], None]) -> None:
        around = auto_close_db()
        self._wait(around.__aenter__)
        consumer()
        self._wait(around.__aexit__, None, None, None)

    def check_returned(self, alias: str) -> None:
        """One that was dropped is closed by a task of the loop's, which has to wait for a thread."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                while out(alias):
                    await asyncio.sleep(0.001)
            assert current_work.get() is None

        self._runner.run(wait())

    def end(self) -> None:
        self._runner.close()

    def _wait(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it in the loop: what it returns asks there for the loop's hooks."""

        async def wait() -> Any:
            return await function(*arguments)

        return self._runner.run(wait())
