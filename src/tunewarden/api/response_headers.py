"""The headers that every response carries, beside its own."""

import time

from starlette.types import Message, Send

from tunewarden.api.product import PRODUCT
from tunewarden.gateway import cors
from tunewarden.gateway.relay import OPENAI_VERSION
from tunewarden.ids import Prefix, mint
from tunewarden.problems import Wire

# In metrics and the access log: what is no route, or was refused before it was looked for.
OTHER = "other"


class Headed:
    """Adds the headers that every response carries."""

    __slots__ = (
        "_is_last",
        "_send",
        "began",
        "cors",
        "organization",
        "request_id",
        "route",
        "status",
    )

    def __init__(self, send: Send, *, is_last: bool) -> None:
        self._send = send
        self._is_last = is_last  # on its connection, which is closed after it
        self.began = time.perf_counter()
        self.request_id = mint(Prefix.REQUEST)
        self.organization = b""
        self.cors: cors.Headers = []
        self.route = OTHER
        self.status = 0  # 0: the response has not begun

    @property
    def is_started(self) -> bool:
        """Whether the response has begun."""
        return self.status != 0

    async def send(self, message: Message) -> None:
        """Send a message; the first one gets the headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            elapsed_ms = (time.perf_counter() - self.began) * 1000
            message["headers"] = [
                *message["headers"],
                (b"x-request-id", self.request_id.encode()),
                (b"openai-version", OPENAI_VERSION),
                PRODUCT,
                (b"openai-processing-ms", b"%d" % elapsed_ms),
                (b"x-content-type-options", b"nosniff"),
                *self.cors,
            ]
            if self._is_last:
                message["headers"].append((b"connection", b"close"))
            if self.organization:
                message["headers"].append((b"openai-organization", self.organization))
        await self._send(message)


async def answer(reply: Headed, wire: Wire) -> None:
    """Send a complete response."""
    status, headers, body = wire
    await reply.send({"type": "http.response.start", "status": status, "headers": headers})
    await reply.send({"type": "http.response.body", "body": body, "more_body": False})
