"""Downloads of files, and of models as archives. Each holds the artifact's guard and re-reads its state before each chunk (I2)."""

import asyncio
import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tunewarden.api.head_requests import IS_HEAD
from tunewarden.errors import Error
from tunewarden.gateway.connection import EXTENSION, ClientConnection
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import file_rows, models
from tunewarden.registry.exports import Exports
from tunewarden.registry.file_rows import File
from tunewarden.registry.files import Files
from tunewarden.registry.models import Model
from tunewarden.serving.admission import Admissions, Serving

THREADS = 8
T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Content:
    """What is sent of artifact `n`: `size` bytes of `chunks`, as a file of this name.

    Chunks may be empty. `absent` is the error if the artifact is not there any more. `record` runs when the first chunk is there and before
    it is sent, unless only the head is asked for.
    """

    n: int
    id: str
    size: int
    filename: str
    media_type: bytes
    action: Action
    absent: Error
    chunks: Generator[bytes, None, None]
    record: Callable[[], object] | None = None
    may_be_archived: bool = False


class Downloads:
    """Sends files, and models. One per worker."""

    def __init__(self, admissions: Admissions, files: Files, exports: Exports) -> None:
        self.admissions = admissions
        self.threads = ThreadPoolExecutor(THREADS, "downloads")
        self._files = files
        self._exports = exports

    def of_file(self, caller: Caller, file: File) -> Response:
        """Return the response that sends a file's content."""
        content = Content(
            n=file.n,
            id=file.id,
            size=file.bytes,
            filename=file.filename,
            media_type=b"application/octet-stream",
            action=Action.READ_FILES,
            absent=file_rows.missing(file.id),
            chunks=self._files.content(file),
        )
        return _Download(self, caller, content)

    def of_model(self, caller: Caller, model: Model) -> Response:
        """Return the response that sends a model's files as an archive, and records that as an export."""
        content = Content(
            n=model.n,
            id=model.id,
            size=self._exports.size(model),
            filename=f"{model.id.replace(':', '-')}.zip",
            media_type=b"application/zip",
            action=Action.EXPORT,
            absent=models.missing(model.id),
            chunks=self._exports.archive(model),
            record=partial(self._exports.record, caller, model),
            may_be_archived=True,
        )
        return _Download(self, caller, content)


class _Download(Response):
    """Sends content while its artifact's guard is held. A deletion aborts it and discards unsent bytes."""

    def __init__(self, downloads: Downloads, caller: Caller, content: Content) -> None:
        super().__init__()
        self._caller = caller
        self._admissions = downloads.admissions
        self._content = content
        self._chunks = _Chunks(content.chunks, downloads.threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: ClientConnection = scope["extensions"][EXTENSION]
        task = asyncio.current_task()
        assert task is not None, "an ASGI application runs in a task"
        client.on_lost = task.cancel
        of = self._content
        try:
            with self._admissions.guarded(
                of.n,
                self._caller,
                of.action,
                of.absent,
                task.cancel,
                may_be_archived=of.may_be_archived,
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
        of = self._content
        chunk = await self._chunks.next()  # A failure here can still be answered with an error.
        while chunk == b"":
            if not self._admissions.may_go_on(serving):
                raise of.absent
            chunk = await self._chunks.next()
        if of.record is not None and not is_head:
            if not self._admissions.may_go_on(serving):
                raise of.absent
            await self._chunks.run(of.record)  # as can one here
        headers = [
            (b"content-type", of.media_type),
            (b"content-length", b"%d" % of.size),
            (b"content-disposition", disposition(of.filename)),
            (b"cache-control", b"no-store"),
        ]
        if not self._admissions.may_go_on(serving):
            raise of.absent
        if is_head:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        client.guard()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = of.size
        try:
            while chunk is not None:
                if not self._admissions.may_go_on(serving):
                    await client.abort()
                    return
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await self._chunks.next()
        except Error as error:
            # The headers are sent: closing the connection is the only way left to signal the error.
            logger.error("the content of %s could not be sent: %s", of.id, error.message)  # noqa: TRY400  expected: no traceback
            await client.abort()
            return
        if left:
            raise RuntimeError(f"{of.id} does not have the size it was stored with")
        # Before the last message: after it uvicorn may close the connection.
        await client.flushes.until(client.has_flushed)
        client.mark()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Chunks:
    """Runs a generator in the thread pool, one step at a time, and always closes it after the last step."""

    def __init__(
        self, generator: Generator[bytes, None, None], threads: ThreadPoolExecutor
    ) -> None:
        self._generator = generator
        self._threads = threads
        self._running: asyncio.Future[object] | None = None

    async def next(self) -> bytes | None:
        """Return the next chunk; None at the end."""
        return await self.run(partial(next, self._generator, None))

    async def run(self, step: Callable[[], T]) -> T:
        """Run a step that `close` waits for."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, step)
        self._running = running  # type: ignore[assignment]  # only waited for
        return await asyncio.shield(running)

    async def close(self) -> None:
        """Close the generator after its current step."""
        await _ended(self._running)
        loop = asyncio.get_running_loop()
        await _ended(loop.run_in_executor(self._threads, self._generator.close))


async def _ended(running: "asyncio.Future[object] | asyncio.Future[None] | None") -> None:
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
