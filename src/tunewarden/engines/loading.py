"""Loads adapters into an engine on first use: decrypted to tmpfs (scratch), handed over, erased. For a driver to complete.

Loads run inside the model's guard.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from tunewarden.engine_protocol.messages import LoadedAdapter, Problem, Refusal, decoded
from tunewarden.engines import scratch
from tunewarden.engines.port import NoteLoad, Unseal
from tunewarden.engines.upstream import Upstream, unavailable
from tunewarden.errors import Error, Kind
from tunewarden.registry.model_lookup import Target

logger = logging.getLogger(__name__)

ANSWER_BYTES_MAX = 1024 * 1024
P = ParamSpec("P")
T = TypeVar("T")
# The incarnation of an engine that has not reported one yet.
UNKNOWN = "unknown"
# The most models remembered as loaded; engines have fewer slots.
LOADED_MAX = 4096


class LoadingEngine:
    """One per worker and engine, on the worker's event loop.

    `must_be_noted`: a load that cannot be noted does not begin.

    `unseal(n, directory)` and `note_load(n, incarnation, is_loaded)` run in the thread pool.
    """

    must_be_noted = False

    def __init__(
        self, upstream: Upstream, scratch_directory: Path, unseal: Unseal, note_load: NoteLoad
    ) -> None:
        self.upstream = upstream
        self._scratch = scratch_directory
        self._unseal = unseal
        self._note_load = note_load
        # The engine process of the last response; it may have ended since.
        self._incarnation = UNKNOWN
        self._loaded: set[str] = set()
        self._loading: dict[str, _Load] = {}

    async def hand_over(self, target: Target, directory: Path) -> tuple[int, bytes]:
        """Make the engine load the files in a directory; return its response's status and body.

        It must not read them after that. Raises ConnectionError.
        """
        raise NotImplementedError

    def has(self, target: Target) -> bool:
        """Return whether the engine has the model, as far as this worker knows."""
        return target.n is None or target.engine_model in self._loaded

    async def load(self, target: Target) -> None:
        """Load the model; concurrent requests share one load."""
        name, n = target.engine_model, target.n
        if n is None or name in self._loaded:
            return
        load = self._loading.get(name)
        if load is None:
            task = asyncio.get_running_loop().create_task(self.loaded(n, target))
            load = self._loading[name] = _Load(task)
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        load.waiting += 1
        try:
            # Shielded: a client's disconnect must not abort a load that others wait for.
            await asyncio.shield(load.task)
        except asyncio.CancelledError:
            if load.waiting == 1:
                # The last waiter keeps the guard until the plaintext files are gone.
                load.task.cancel()
                await ended(load.task)
            raise
        finally:
            load.waiting -= 1

    def unload(self, target: Target) -> None:
        """Note that the engine does not have the model."""
        self._loaded.discard(target.engine_model)

    async def loaded(self, n: int, target: Target) -> None:
        """Load a model; one load at a time of each. Raises Error."""
        name = target.engine_model
        directory = scratch.new_directory(self._scratch, name)
        try:
            # Write ahead: if this worker dies during the load, the engine process must still be on record.
            noted = await in_thread(self._prepare, n, directory, self._incarnation)
            status, body = await self.hand_over(target, directory)
            if status == 200:
                self._incarnation = _incarnation_in(body)
                if self._incarnation != noted:
                    await in_thread(self._note, n, self._incarnation, is_loaded=True)
        except ConnectionError as error:
            raise unavailable() from error
        finally:
            scratch.erase(directory)
        if status != 200:
            raise _load_failed(status, body)
        if len(self._loaded) >= LOADED_MAX:
            self._loaded.pop()  # an arbitrary one: at worst it is loaded again
        self._loaded.add(name)

    def _prepare(self, n: int, directory: Path, incarnation: str) -> str:
        noted = self._note(n, incarnation, is_loaded=False)
        self._unseal(n, directory)
        return noted

    def _note(self, n: int, incarnation: str, *, is_loaded: bool) -> str:
        try:
            return self._note_load(n, incarnation, is_loaded)
        except Error as error:
            if self.must_be_noted:
                raise
            # A full disk must not block inference. A receipt then says `not_loaded`, which is what the engine saw.
            logger.warning("which engine loads a model could not be noted: %s", error.message)
            return incarnation


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[None]
    waiting: int = 0


async def in_thread(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run `work` in the thread pool; return only when it has ended, even if cancelled."""
    working = asyncio.get_running_loop().run_in_executor(None, partial(work, *arguments, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await ended(working)  # A thread cannot be cancelled; it must not write after we return.
        raise


async def ended(future: asyncio.Future[T]) -> None:
    """Wait until it is done, with any outcome, however often the wait is cancelled."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _incarnation_in(body: bytes) -> str:
    try:
        return decoded(body, LoadedAdapter).incarnation
    except ValueError as error:
        raise unavailable() from error


def _load_failed(status: int, body: bytes) -> Error:
    try:
        problem = decoded(body, Refusal).error
    except ValueError:
        problem = Problem()
    message, code = problem.message or "The engine could not load this model.", problem.code
    if status in {429, 503}:
        return Error(Kind.UNAVAILABLE, message, code=code, retry_after_seconds=1)
    if status == 404:
        return unavailable()  # The engine is starting and has not loaded the base yet.
    return Error(Kind.ENGINE_FAILED, message, code=code)
