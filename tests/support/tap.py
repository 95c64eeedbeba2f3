"""A proxy that notes the statements of clients, for a server of either kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.wiretap import Wiretap
from servers import MariaDB
from servers.packets import PacketProxy


class Tap:
    """The statements that a client sends, a text for each packet."""

    def __init__(self, server: Any) -> None:
        self.proxy: Any = (Wiretap if isinstance(server, MariaDB) else PacketProxy)(server.host, server.port)

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yield a list that has the packets of the block after its end."""
        found: list[str] = []
        if isinstance(self.proxy, Wiretap):
            with self.proxy.listening() as heard:
                yield found
            found += heard
        else:
            with self.proxy.counting() as count:
                yield found
            assert count.total == len(count.texts)
            found += count.texts
