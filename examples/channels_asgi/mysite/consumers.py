# mysite/consumers.py
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import connection


@database_sync_to_async
def session():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


class SessionConsumer(AsyncWebsocketConsumer):
    """Between two messages it has no session."""

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=str(await session()))
