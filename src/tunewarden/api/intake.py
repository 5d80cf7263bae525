"""Files from clients into threads: pieces come on the event loop and are sealed in a thread, in flat memory.

Sealing reads, so it needs a thread of its own for as long as its client takes; these threads are not
those that other handlers run on. Between loop and thread lie at most HELD_BYTES_MAX of a file.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import TypeVar

from tunewarden.artifacts.sealing import Readable
from tunewarden.errors import Error, Kind

STREAMS_MAX = 32
WAIT_SECONDS = 30.0
HELD_BYTES_MAX = 512 * 1024

T = TypeVar("T")


class Intake:
    """Takes up to STREAMS_MAX files at once; more wait for their turn, their bodies unread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(STREAMS_MAX, "intake")
        self._turns = asyncio.Semaphore(STREAMS_MAX)

    async def take(self, pieces: AsyncGenerator[bytes, None], work: Callable[[Readable], T]) -> T:
        """Run `work` in a thread on a reader that yields the pieces; return what it returns.

        What ends the pieces ends the reader: an error is raised to `work` by its next read, and here
        when `work` has ended. A `work` that ends first is not given the rest.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many files are being uploaded at once; try again.",
                retry_after_seconds=5,
            ) from error
        try:
            return await self._take(pieces, work)
        finally:
            self._turns.release()

    async def _take(self, pieces: AsyncGenerator[bytes, None], work: Callable[[Readable], T]) -> T:
        loop = asyncio.get_running_loop()
        inflow = Inflow(loop)

        def run() -> T:
            try:
                return work(inflow)
            finally:
                inflow.close()

        working = loop.run_in_executor(self._threads, run)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if not await inflow.put(piece):
                        break
            inflow.end()
            return await asyncio.shield(working)
        except BaseException as error:
            inflow.end(error)
            # What was begun is undone when this returns: a refusal leaves nothing behind.
            await _ended(working)
            raise


class Inflow:
    """Bytes on their way from the event loop to one thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._is_full = False
        self._is_ended = False
        self._is_closed = False
        self._failure: BaseException | None = None
        self._room = asyncio.Event()
        self._rest = memoryview(b"")  # the thread's alone

    async def put(self, piece: bytes) -> bool:
        """Hand a piece over, when there is room; False if nobody reads any more."""
        with self._changed:
            if self._is_closed:
                return False
            self._pieces.append(piece)
            self._held += len(piece)
            self._is_full = self._held >= HELD_BYTES_MAX
            if self._is_full:
                self._room.clear()
            else:
                self._room.set()
            self._changed.notify()
        await self._room.wait()
        return not self._is_closed

    def end(self, failure: BaseException | None = None) -> None:
        """Say that nothing more comes; with a failure, that what came is not all."""
        with self._changed:
            self._is_ended = True
            self._failure = self._failure or failure
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end; waits for them. Raises the failure, if there was one."""
        if not self._rest:
            self._rest = memoryview(self._next())
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def close(self) -> None:
        """Say that nothing more is read."""
        with self._changed:
            self._is_closed = True
            self._pieces.clear()
            self._wake()

    def _next(self) -> bytes:
        with self._changed:
            while not self._pieces and not self._is_ended:
                self._changed.wait()
            if self._failure is not None:
                raise _as_error(self._failure)
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            self._held -= len(piece)
            if self._is_full and self._held < HELD_BYTES_MAX // 2:
                self._is_full = False
                self._wake()
            return piece

    def _wake(self) -> None:
        with suppress(RuntimeError):  # The loop has ended, and nobody waits in it.
            self._loop.call_soon_threadsafe(self._room.set)


def _as_error(failure: BaseException) -> Error:
    """Return a failure as the thread may raise it: being cancelled is the loop's affair."""
    if isinstance(failure, Error):
        return failure
    return Error(Kind.UNAVAILABLE, "The upload was broken off.")


async def _ended(working: "asyncio.Future[T]") -> None:
    """Return when the thread has ended, also if this task is cancelled again meanwhile."""
    while not working.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([working])
    if not working.cancelled():
        working.exception()  # Looked at: the caller raises what came first.
