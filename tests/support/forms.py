"""Every form of ``auto_close_db``: each runs a body to its end, in this thread, and returns its result.

Asynchronous ones, too: ``async_to_sync()`` has ``sync_to_async()`` come back to the calling thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from poollife import auto_close_db

Body = Callable[[], Any]


def function(body: Body) -> Any:
    return auto_close_db(body)()


def with_parentheses(body: Body) -> Any:
    @auto_close_db()
    def job() -> Any:
        return body()

    return job()


class Job:
    """What methods are tried on; they get the body as an argument."""

    @auto_close_db
    def method(self, body: Body) -> Any:
        assert isinstance(self, Job)
        return body()

    @staticmethod
    @auto_close_db
    def static(body: Body) -> Any:
        return body()

    @auto_close_db
    @staticmethod
    def static_below(body: Body) -> Any:
        return body()

    @classmethod
    @auto_close_db
    def of_class(cls, body: Body) -> Any:
        assert cls is Job
        return body()

    @auto_close_db
    @classmethod
    def of_class_below(cls, body: Body) -> Any:
        assert cls is Job
        return body()

    def __call__(self, body: Body) -> Any:
        return body()


def method(body: Body) -> Any:
    return Job().method(body)


def static_method(body: Body) -> Any:
    return Job.static(body)


def above_staticmethod(body: Body) -> Any:
    return Job().static_below(body)


def class_method(body: Body) -> Any:
    return Job().of_class(body)


def above_classmethod(body: Body) -> Any:
    return Job.of_class_below(body)


def bound_method(body: Body) -> Any:
    return auto_close_db(Job().__call__)(body)


def callable_object(body: Body) -> Any:
    return auto_close_db(Job())(body)


class Steps:
    def __call__(self, body: Body) -> Iterator[Any]:
        yield body()


def object_that_generates(body: Body) -> Any:
    (result,) = auto_close_db(Steps())(body)
    return result


def partial_object_that_generates(body: Body) -> Any:
    (result,) = auto_close_db(partial(Steps(), body))()
    return result


class Task:
    async def __call__(self, body: Body) -> Any:
        return await sync_to_async(body)()


def asynchronous_object(body: Body) -> Any:
    return async_to_sync(auto_close_db(Task()))(body)


def partial_asynchronous_object(body: Body) -> Any:
    return async_to_sync(auto_close_db(partial(Task(), body)))()


def partial_object(body: Body) -> Any:
    return auto_close_db(partial(Job(), body))()


def generator(body: Body) -> Any:
    @auto_close_db
    def steps() -> Iterator[Any]:
        yield body()

    (result,) = steps()
    return result


def generator_that_returns(body: Body) -> Any:
    @auto_close_db
    def steps() -> Generator[None, None, Any]:
        yield
        return body()

    def delegate() -> Iterator[Any]:
        yield (yield from steps())

    nothing, result = delegate()
    assert nothing is None
    return result


def block(body: Body) -> Any:
    with auto_close_db():
        return body()


def coroutine(body: Body) -> Any:
    @auto_close_db
    async def job() -> Any:
        return await sync_to_async(body)()

    return async_to_sync(job)()


def sync_to_async_object(body: Body) -> Any:
    return async_to_sync(auto_close_db(sync_to_async(body)))()


def async_to_sync_object(body: Body) -> Any:
    async def job() -> Any:
        return await sync_to_async(body)()

    return auto_close_db(async_to_sync(job))()


def partial_coroutine(body: Body) -> Any:
    async def job(body: Body) -> Any:
        return await sync_to_async(body)()

    return async_to_sync(auto_close_db(partial(job, body)))()


def async_generator(body: Body) -> Any:
    @auto_close_db
    async def steps() -> AsyncIterator[Any]:
        yield await sync_to_async(body)()

    async def main() -> Any:
        (result,) = [each async for each in steps()]
        return result

    return async_to_sync(main)()


def async_block(body: Body) -> Any:
    async def main() -> Any:
        async with auto_close_db():
            return await sync_to_async(body)()

    return async_to_sync(main)()


FORMS = [
    function,
    with_parentheses,
    method,
    static_method,
    above_staticmethod,
    class_method,
    above_classmethod,
    bound_method,
    callable_object,
    object_that_generates,
    asynchronous_object,
    partial_object_that_generates,
    partial_asynchronous_object,
    partial_object,
    generator,
    generator_that_returns,
    block,
    coroutine,
    sync_to_async_object,
    async_to_sync_object,
    partial_coroutine,
    async_generator,
    async_block,
]
#: One of each kind.
KINDS = [function, generator, block, coroutine, async_generator, async_block]


def by_name(thing: Any) -> str:
    return str(thing.__name__)


every_form = pytest.mark.parametrize("form", FORMS, ids=by_name)
every_kind = pytest.mark.parametrize("form", KINDS, ids=by_name)
