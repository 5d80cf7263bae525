"""A file's content on its way to a client: under the file's guard, its state read before each chunk (I2)."""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunewarden.api.client import EXTENSION, FLUSH_POLL_SECONDS, Client
from tunewarden.errors import Error
from tunewarden.registry import files
from tunewarden.registry.files import File
from tunewarden.serving.admission import Admissions, Serving

THREADS = 8

logger = logging.getLogger(__name__)


class Downloads:
    """Sends files. One a worker."""

    def __init__(
        self, admissions: Admissions, content: Callable[[File], Generator[bytes, None, None]]
    ) -> None:
        self.admissions = admissions
        self.content = content
        self.threads = ThreadPoolExecutor(THREADS, "downloads")

    def answer(self, file: File) -> Response:
        """Return the answer that sends a file's content."""
        return _Download(self, file)


class _Download(Response):
    """Sends a file while its guard is held; a deletion cuts it, and nothing that waits unsent leaves."""

    def __init__(self, downloads: Downloads, file: File) -> None:
        super().__init__()
        self._admissions = downloads.admissions
        self._file = file
        self._chunks = _Chunks(downloads.content(file), downloads.threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: Client = scope["extensions"][EXTENSION]
        task = asyncio.current_task()
        assert task is not None, "an ASGI application runs in a task"
        client.on_lost = task.cancel
        absent = files.missing(self._file.id)
        try:
            with self._admissions.guarded(self._file.n, absent, task.cancel) as serving:
                try:
                    await self._send(send, client, serving)
                except asyncio.CancelledError:
                    if not serving.is_cut or client.is_lost:
                        raise
                    task.uncancel()
                    await client.cut()
                finally:
                    await self._chunks.close()  # Its key is in memory until then.
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            if client.on_lost == task.cancel:  # and not the next request's on this connection
                client.on_lost = None

    async def _send(self, send: Send, client: Client, serving: Serving) -> None:
        chunk = await self._chunks.next()  # What cannot be opened at all is still an error to tell.
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % self._file.bytes),
            (b"content-disposition", disposition(self._file.filename)),
            (b"cache-control", b"no-store"),
        ]
        if not self._admissions.may_go_on(serving):
            raise files.missing(self._file.id)
        client.guard()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = self._file.bytes
        try:
            while chunk:
                if not self._admissions.may_go_on(serving):
                    await client.cut()
                    return
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await self._chunks.next()
        except Error as error:
            # A connection that breaks is the only way left to say that this is not the file.
            logger.error("the content of %s could not be sent: %s", self._file.id, error.message)  # noqa: TRY400
            await client.cut()
            return
        if left:
            raise RuntimeError(f"{self._file.id} has another size than it was stored with")
        # First, because with its end uvicorn may close the connection.
        while client.has_unsent() and not client.is_lost:  # noqa: ASYNC110
            await asyncio.sleep(FLUSH_POLL_SECONDS)
        client.mark()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Chunks:
    """A generator that is run in threads, one step at a time, and always closed."""

    def __init__(
        self, generator: Generator[bytes, None, None], threads: ThreadPoolExecutor
    ) -> None:
        self._generator = generator
        self._threads = threads
        self._running: asyncio.Future[bytes] | None = None

    async def next(self) -> bytes:
        """Return the next chunk, none at the end."""
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._threads, next, self._generator, b"")
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Close the generator, once its step has ended."""
        await _ended(self._running)
        loop = asyncio.get_running_loop()
        await _ended(loop.run_in_executor(self._threads, self._generator.close))


async def _ended(running: "asyncio.Future[bytes] | asyncio.Future[None] | None") -> None:
    """Return when a step in a thread has ended, also if this task is cancelled meanwhile."""
    cancelled = False
    while running is not None and not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    if running is not None and not running.cancelled():
        running.exception()  # Looked at: whoever waited for the step has raised it.
    if cancelled:
        raise asyncio.CancelledError


def disposition(filename: str) -> bytes:
    """Return a Content-Disposition that saves under this name and can carry nothing else.

    # RFC 6266
    """
    plain = "".join(
        one if one.isascii() and (one.isalnum() or one in "._- ") else "_" for one in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}".encode()
