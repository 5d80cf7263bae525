"""File downloads. Each holds the file's guard and re-reads the file's state before each chunk (I2)."""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunewarden.api.head_requests import IS_HEAD
from tunewarden.errors import Error
from tunewarden.gateway.connection import EXTENSION, ClientConnection
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import file_rows
from tunewarden.registry.file_rows import File
from tunewarden.serving.admission import Admissions, Serving

THREADS = 8

logger = logging.getLogger(__name__)


class Downloads:
    """Sends files. One per worker."""

    def __init__(
        self, admissions: Admissions, content: Callable[[File], Generator[bytes, None, None]]
    ) -> None:
        self.admissions = admissions
        self.content = content
        self.threads = ThreadPoolExecutor(THREADS, "downloads")

    def answer(self, caller: Caller, file: File) -> Response:
        """Return the response that sends a file's content."""
        return _Download(self, caller, file)


class _Download(Response):
    """Sends a file while its guard is held. A deletion aborts it and discards unsent bytes."""

    def __init__(self, downloads: Downloads, caller: Caller, file: File) -> None:
        super().__init__()
        self._caller = caller
        self._admissions = downloads.admissions
        self._file = file
        self._chunks = _Chunks(downloads.content(file), downloads.threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: ClientConnection = scope["extensions"][EXTENSION]
        task = asyncio.current_task()
        assert task is not None, "an ASGI application runs in a task"
        client.on_lost = task.cancel
        absent = file_rows.missing(self._file.id)
        try:
            with self._admissions.guarded(
                self._file.n, self._caller, Action.READ_FILES, absent, task.cancel
            ) as serving:
                try:
                    await self._send(send, client, serving, is_head=IS_HEAD in scope)
                except asyncio.CancelledError:
                    if serving.ended_by is None or client.is_lost:
                        raise
                    task.uncancel()
                    await client.abort()
                finally:
                    await self._chunks.close()  # Its key is in memory until then.
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            if client.on_lost == task.cancel:  # else it belongs to the connection's next request
                client.on_lost = None

    async def _send(
        self, send: Send, client: ClientConnection, serving: Serving, *, is_head: bool
    ) -> None:
        chunk = await self._chunks.next()  # A failure here can still be answered with an error.
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % self._file.bytes),
            (b"content-disposition", disposition(self._file.filename)),
            (b"cache-control", b"no-store"),
        ]
        if not self._admissions.may_go_on(serving):
            raise file_rows.missing(self._file.id)
        if is_head:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        client.guard()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = self._file.bytes
        try:
            while chunk:
                if not self._admissions.may_go_on(serving):
                    await client.abort()
                    return
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await self._chunks.next()
        except Error as error:
            # The headers are sent: closing the connection is the only way left to signal the error.
            logger.error("the content of %s could not be sent: %s", self._file.id, error.message)  # noqa: TRY400  expected: no traceback
            await client.abort()
            return
        if left:
            raise RuntimeError(f"{self._file.id} does not have the size it was stored with")
        # Before the last message: after it uvicorn may close the connection.
        await client.flushes.until(client.has_flushed)
        client.mark()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Chunks:
    """Runs a generator in the thread pool, one step at a time, and always closes it."""

    def __init__(
        self, generator: Generator[bytes, None, None], threads: ThreadPoolExecutor
    ) -> None:
        self._generator = generator
        self._threads = threads
        self._running: asyncio.Future[bytes] | None = None

    async def next(self) -> bytes:
        """Return the next chunk; b"" at the end."""
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._threads, next, self._generator, b"")
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Close the generator after its current step."""
        await _ended(self._running)
        loop = asyncio.get_running_loop()
        await _ended(loop.run_in_executor(self._threads, self._generator.close))


async def _ended(running: "asyncio.Future[bytes] | asyncio.Future[None] | None") -> None:
    """Wait for a step in a thread, even if this task is cancelled in the meantime."""
    cancelled = False
    while running is not None and not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    if running is not None and not running.cancelled():
        running.exception()  # Mark it retrieved: the task that awaited the step has raised it.
    if cancelled:
        raise asyncio.CancelledError


def disposition(filename: str) -> bytes:
    """Return a Content-Disposition header for this file name, escaped against header injection.

    # RFC 6266
    """
    plain = "".join(
        one if one.isascii() and (one.isalnum() or one in "._- ") else "_" for one in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}".encode()
