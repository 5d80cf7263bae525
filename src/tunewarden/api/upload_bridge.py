"""Streams uploads from the event loop to a thread that seals them, in constant memory.

Sealing blocks on the client, so each upload occupies a thread until it ends; these threads are not
in the pool of the other handlers. At most HELD_BYTES_MAX of a file are buffered in between.
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from typing import TypeVar

from tunewarden.artifacts.sealing import Readable
from tunewarden.errors import Error, Kind

STREAMS_MAX = 32
SHARE_MAX = 16  # per organization
WAIT_SECONDS = 30.0
HELD_BYTES_MAX = 512 * 1024
CHECK_SECONDS = 0.5

T = TypeVar("T")


class Intake:
    """Receives up to STREAMS_MAX files concurrently; further ones queue, their bodies unread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(STREAMS_MAX, "intake")
        self._turns = asyncio.Semaphore(STREAMS_MAX)
        # By organization with uploads in progress: how many, and its semaphore.
        self._coming: Counter[str] = Counter()
        self._shares: dict[str, asyncio.Semaphore] = {}

    async def take(
        self,
        organization: str,
        pieces: AsyncGenerator[bytes, None],
        work: Callable[[Readable], T],
        *,
        check: Callable[[], object] = lambda: None,
    ) -> T:
        """Run `work` in a thread, with a blocking reader of the pieces; return its result.

        An error of `pieces` is raised by the next read of `work`, and here
        once `work` has ended. If `work` ends first, the rest is not read. `check` is called in the
        thread every CHECK_SECONDS and at the end; it raises Error if the upload must not be kept.
        """
        async with self._turn(organization):
            return await self._take(pieces, work, check)

    @asynccontextmanager
    async def _turn(self, organization: str) -> AsyncGenerator[None, None]:
        """Wait for a slot of the organization, then for one of the worker. Raises Error(RATE_LIMITED)."""
        share = self._shares.setdefault(organization, asyncio.Semaphore(SHARE_MAX))
        self._coming[organization] += 1
        try:
            async with AsyncExitStack() as turns:
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        await turns.enter_async_context(share)
                        await turns.enter_async_context(self._turns)
                except TimeoutError as error:
                    raise Error(
                        Kind.RATE_LIMITED,
                        "Too many concurrent uploads. Please try again later.",
                        retry_after_seconds=5,
                    ) from error
                yield
        finally:
            self._coming[organization] -= 1
            if not self._coming[organization]:
                del self._coming[organization], self._shares[organization]

    async def _take(
        self,
        pieces: AsyncGenerator[bytes, None],
        work: Callable[[Readable], T],
        check: Callable[[], object],
    ) -> T:
        loop = asyncio.get_running_loop()
        inflow = Inflow(loop)

        def run() -> T:
            try:
                return work(_Checked(inflow, check, loop.time))
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
            # `work` has cleaned up by the time this returns: a refused upload leaves nothing behind.
            await _ended(working)
            raise


class _Checked:
    """A reader that calls `check` every CHECK_SECONDS and at the end."""

    def __init__(
        self, reader: Readable, check: Callable[[], object], monotonic: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._check = check
        self._monotonic = monotonic
        self._checked_at = monotonic()

    def read(self, size: int) -> bytes:
        """Return the next bytes; b"" at the end. Raises what the check raises."""
        data = self._reader.read(size)
        now = self._monotonic()
        if not data or now - self._checked_at > CHECK_SECONDS:
            self._checked_at = now
            self._check()
        return data


class Inflow:
    """A bounded byte pipe from the event loop to one thread."""

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
        self._rest = memoryview(b"")  # used by the thread only

    async def put(self, piece: bytes) -> bool:
        """Wait for room and add a piece; False if the reader has closed."""
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
        """Signal the end of the stream; with `failure`, that it is incomplete."""
        with self._changed:
            self._is_ended = True
            self._failure = self._failure or failure
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """Block for the next bytes and return them; b"" at the end. Raises the failure, if any."""
        if not self._rest:
            self._rest = memoryview(self._next())
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def close(self) -> None:
        """Stop reading; `put` then returns False."""
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
        with suppress(RuntimeError):  # The event loop is closed.
            self._loop.call_soon_threadsafe(self._room.set)


def _as_error(failure: BaseException) -> Error:
    """Convert a failure for the thread: a CancelledError must not be raised outside the event loop."""
    if isinstance(failure, Error):
        return failure
    return Error(Kind.UNAVAILABLE, "The upload was interrupted.")


async def _ended(working: "asyncio.Future[T]") -> None:
    """Wait for the thread, even if this task is cancelled again in the meantime."""
    while not working.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([working])
    if not working.cancelled():
        working.exception()  # Mark it retrieved: the caller raises the first error.
