"""The port that connections use to reach their worker; `api.server.Server` implements it."""

from collections.abc import Iterable
from typing import Protocol

from tunewarden.gateway.connections import Connections
from tunewarden.gateway.cors import Cors
from tunewarden.gateway.flushes import Flushes
from tunewarden.gateway.inference import Inference
from tunewarden.identity.key_format import Presented


class Worker(Protocol):
    """Shared by all connections of one worker."""

    inference: Inference
    connections: Connections
    flushes: Flushes
    cors: Cors | None

    @property
    def is_draining(self) -> bool:
        """Whether each response closes its connection, because the worker is draining."""

    def presented(self, headers: Iterable[tuple[bytes, bytes]]) -> Presented:
        """Return the request's API key. Raises Error(UNAUTHENTICATED), Error(INVALID)."""
