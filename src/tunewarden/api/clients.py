"""The clients of a worker: how many, and for how long one may keep it waiting."""

import asyncio
from typing import TYPE_CHECKING

from tunewarden.config import Config
from tunewarden.errors import Error, Kind

if TYPE_CHECKING:
    from tunewarden.api.protocol import ClientProtocol

WATCH_SECONDS = 1.0


class Clients:
    """The connections of one worker. One timer watches them all: none has one of its own."""

    def __init__(self, config: Config) -> None:
        self._connections: set[ClientProtocol] = set()
        self._most = config.connections_max
        self._client_seconds = config.client_seconds
        self._engine_seconds = config.engine_seconds

    def add(self, connection: "ClientProtocol") -> None:
        """Count a connection. Raises Error(UNAVAILABLE) for one too many."""
        if len(self._connections) >= self._most:
            raise Error(
                Kind.UNAVAILABLE,
                "The server has as many connections as it may have. Try again shortly.",
                code="too_many_connections",
                retry_after_seconds=1,
            )
        self._connections.add(connection)

    def discard(self, connection: "ClientProtocol") -> None:
        """Count a connection no more."""
        self._connections.discard(connection)

    async def watch(self) -> None:
        """End what takes too long, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for connection in list(self._connections):
                connection.end_if_overdue(
                    loop.time(),
                    client_seconds=self._client_seconds,
                    engine_seconds=self._engine_seconds,
                )
