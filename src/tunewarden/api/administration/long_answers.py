"""Answers to administrators that go on: cut within a second when the key is revoked or its user no Owner any more.

# I19
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tunewarden.api.json_lines import JSON_LINES
from tunewarden.api.parameters import Administration
from tunewarden.errors import Error, Kind
from tunewarden.gateway.connection import EXTENSION, ClientConnection
from tunewarden.identity import admin_keys

WATCH_SECONDS = 0.4

logger = logging.getLogger(__name__)


class Lines(StreamingResponse):
    """Lines of JSON for an administrator. A client that reads slowly does not get what waits for it either."""

    def __init__(self, context: Administration, lines: Iterator[bytes]) -> None:
        super().__init__(lines, media_type=JSON_LINES)
        self._lines = lines
        self._database = context.operations.database
        self._administrator = context.administrator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        client: ClientConnection = scope["extensions"][EXTENSION]
        self.body_iterator = self._allowed(client)
        watching = asyncio.create_task(self._watch(client))
        try:
            await super().__call__(scope, receive, send)
        finally:
            watching.cancel()

    async def _allowed(self, client: ClientConnection) -> AsyncIterator[bytes]:
        """Yield the lines. What raises after the status was sent can only be told by breaking off."""
        try:
            async for piece in iterate_in_threadpool(self._lines):
                yield piece
        except Error as error:
            logger.warning("an export was broken off: %s", error.message)
            await client.abort()

    async def _watch(self, client: ClientConnection) -> None:
        while not client.is_lost:
            await asyncio.sleep(WATCH_SECONDS)
            if not await run_in_threadpool(self._may_go_on):
                await client.abort()
                return

    def _may_go_on(self) -> bool:
        try:
            with self._database.read() as tx:
                admin_keys.check_now(tx, self._administrator)
        except Error as error:
            return error.kind is not Kind.UNAUTHENTICATED
        return True
