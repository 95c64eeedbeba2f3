"""What stands beside Django and uses its ORM, as people write it: Starlette, FastAPI and Channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.threads_site.models import Visit
from tests.support.threads_site.questions import answer_to, change
from tests.support.threads_site.views import session

PARTS = 3


def query() -> str:
    """One through the ORM, and one with a cursor."""
    assert not Visit.objects.exists()
    return str(session())


# --- Starlette --------------------------------------------------------------------------------------------


def endpoint(request: Request) -> Response:
    """In a thread of AnyIO's."""
    return PlainTextResponse(query())


async def endpoint_sync_to_async(request: Request) -> Response:
    return PlainTextResponse(await sync_to_async(query)())


async def endpoint_orm(request: Request) -> Response:
    assert [visit async for visit in Visit.objects.all()] == []
    return PlainTextResponse(f"{await Visit.objects.acount()} visits")


async def endpoint_to_thread(request: Request) -> Response:
    return PlainTextResponse(await asyncio.to_thread(query))


async def endpoint_state(request: Request) -> Response:
    """It leaves something in its session."""
    await sync_to_async(change)("SET @mine = 1")
    return PlainTextResponse("set")


def endpoint_stream(request: Request) -> Response:
    """Each part may be made in another thread of AnyIO's."""

    def body() -> Iterator[str]:
        for _ in range(PARTS):
            yield query()

    return StreamingResponse(body())


async def endpoint_stream_async(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        for _ in range(PARTS):
            yield await sync_to_async(query)()

    return StreamingResponse(body())


def endpoint_background(request: Request) -> Response:
    return PlainTextResponse(query(), background=BackgroundTask(query))


ENDPOINTS: dict[str, Any] = {
    "sync": endpoint,
    "sync_to_async": endpoint_sync_to_async,
    "async_orm": endpoint_orm,
    "to_thread": endpoint_to_thread,
    "state": endpoint_state,
    "stream": endpoint_stream,
    "stream_async": endpoint_stream_async,
    "background": endpoint_background,
}


async def endpoint_question(request: Request) -> Response:
    way, number = request.path_params["way"], request.path_params["number"]
    status, answer = await answer_to(way, number, request.query_params)
    return PlainTextResponse(answer, status)


starlette = Starlette(
    routes=[
        Route("/question/{way}/{number:int}", endpoint_question),
        *(Route(f"/{name}", view) for name, view in ENDPOINTS.items()),
    ]
)

# --- FastAPI ----------------------------------------------------------------------------------------------

fastapi = FastAPI()


def dependency() -> Iterator[str]:
    """In a thread of AnyIO's, and its end in another."""
    yield query()
    query()


async def dependency_orm() -> int:
    return await Visit.objects.acount()


@fastapi.get("/sync")
def path_operation(first: str = Depends(dependency)) -> str:
    return first + query()


@fastapi.get("/async_orm")
async def path_operation_orm(visits: int = Depends(dependency_orm)) -> int:
    return visits + await Visit.objects.acount()


@fastapi.get("/sync_to_async")
async def path_operation_sync_to_async() -> str:
    return await sync_to_async(query)()


@fastapi.get("/background")
def path_operation_background(tasks: BackgroundTasks) -> str:
    tasks.add_task(query)
    return query()


# --- Channels: they answer each message, for as long as the client likes ----------------------------------


class SyncConsumer(WebsocketConsumer):  # type: ignore[misc]  # it has no types
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=f"{text_data} {query()}")


class DatabaseConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # it has no types
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"{text_data} {await database_sync_to_async(query)()}")


class SyncToAsyncConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # it has no types
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"{text_data} {await sync_to_async(query)()}")


class OrmConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # it has no types
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=f"{text_data} {await Visit.objects.acount()}")


CONSUMERS: dict[str, Any] = {
    "sync": SyncConsumer,
    "database_sync_to_async": DatabaseConsumer,
    "sync_to_async": SyncToAsyncConsumer,
    "async_orm": OrmConsumer,
}
