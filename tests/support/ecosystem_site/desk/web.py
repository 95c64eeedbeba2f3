"""Clients of a live server."""

from __future__ import annotations

import http.client
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

#: Clients that stay connected to servers that have ended.
stayed: list[tuple[http.client.HTTPConnection, http.client.HTTPResponse]] = []


def get(url: str) -> str:
    """The body of the answer."""
    with urllib.request.urlopen(url, timeout=30) as response:
        body: bytes = response.read()
    return body.decode()


def get_all(urls: list[str]) -> list[str]:
    """All at once."""
    with ThreadPoolExecutor(len(urls)) as executor:
        return list(executor.map(get, urls))


def get_and_stay(url: str, size: int | None = None) -> str:
    """Keep the connection open after the answer, or so much of it, for longer than the server lives."""
    parts = urlsplit(url)
    client = http.client.HTTPConnection(parts.netloc, timeout=30)
    client.request("GET", parts.path)
    response = client.getresponse()
    stayed.append((client, response))
    return response.read(size).decode()
