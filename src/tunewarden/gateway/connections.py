"""The client connections of a worker: limits on their number, and timeouts."""

import asyncio
from collections import Counter
from ipaddress import ip_address
from typing import Protocol

from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.settings import Network, networks

WATCH_SECONDS = 1.0
# A host may use every IPv6 address in a prefix of this length.
HOST_BITS = 64


class Bounded(Protocol):
    """A connection with timeouts."""

    @property
    def client(self) -> tuple[str, int] | None:
        """The address and port of the other side; None on a unix socket."""

    def end_if_overdue(self, now: float, *, client_seconds: float, engine_seconds: float) -> None:
        """End the connection if a timeout has passed; `now` is the event loop's time in seconds."""


class Connections:
    """The connections of one worker. One timer checks the timeouts of all of them."""

    def __init__(self, config: Config) -> None:
        # By connection, the address it is counted under, if any.
        self._connections: dict[Bounded, str | None] = {}
        self._of_address: Counter[str] = Counter()
        self._most = config.connections_max
        self._most_of_address = config.connections_per_address_max
        self._trusted = networks(config.trusted_proxies)
        self._client_seconds = config.client_seconds
        self._engine_seconds = config.engine_seconds

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Bounded) -> None:
        """Count a connection. Raises Error(UNAVAILABLE) beyond the limits."""
        if len(self._connections) >= self._most:
            raise _too_many("The server has too many connections. Try again shortly.")
        address = None
        if connection.client is not None:
            address = counted_address(connection.client[0], self._trusted)
        if address is not None:
            if self._of_address[address] >= self._most_of_address:
                raise _too_many(
                    f"Too many connections from your address (limit {self._most_of_address})."
                )
            self._of_address[address] += 1
        self._connections[connection] = address

    def discard(self, connection: Bounded) -> None:
        """Stop counting a connection."""
        address = self._connections.pop(connection, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    async def watch(self) -> None:
        """Check timeouts each second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for connection in list(self._connections):
                connection.end_if_overdue(
                    loop.time(),
                    client_seconds=self._client_seconds,
                    engine_seconds=self._engine_seconds,
                )


def counted_address(host: str, trusted: list[Network]) -> str | None:
    """Return the key for the limit per address: the IPv4 address or IPv6 prefix; None for trusted networks."""
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    if any(address in network for network in trusted):
        return None
    if address.version == 4:
        return str(address)
    return str(int(address) >> HOST_BITS)


def _too_many(said: str) -> Error:
    return Error(Kind.UNAVAILABLE, said, code="too_many_connections", retry_after_seconds=1)
