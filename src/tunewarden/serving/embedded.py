"""Engine driver for the embedded engine: a process of its own on a unix socket.

An adapter is loaded on first use: unsealed into memory (scratch), handed over by path, and unlinked by
the engine. Loads run inside the model's guard; eviction is in `engine_verbs.py`.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tunewarden.errors import Error, Kind
from tunewarden.registry.served import Target
from tunewarden.serving import scratch
from tunewarden.serving.address import Address
from tunewarden.serving.upstream import Upstream, unavailable

ANSWER_BYTES_MAX = 1024 * 1024
# How many models are remembered as loaded; engines have room for fewer.
LOADED_MAX = 4096


class EmbeddedEngine:
    """One a worker, on its event loop.

    `unseal(n, directory)` writes the plain files of model `n` into a directory; it is run in a thread.
    """

    def __init__(
        self, socket_path: Path, scratch_directory: Path, unseal: Callable[[int, Path], None]
    ) -> None:
        self.upstream = Upstream(Address(socket=str(socket_path)))
        self._verbs = Upstream(Address(socket=str(socket_path), prefix="/engine"))
        self._scratch = scratch_directory
        self._unseal = unseal
        self._loaded: set[str] = set()
        self._loading: dict[str, _Load] = {}

    def has(self, target: Target) -> bool:
        """Tell whether the engine has the model, as far as this worker knows."""
        return target.n is None or target.engine_model in self._loaded

    async def load(self, target: Target) -> None:
        """Return when the engine has the model; requests that come together share one load."""
        name, n = target.engine_model, target.n
        if n is None or name in self._loaded:
            return
        load = self._loading.get(name)
        if load is None:
            task = asyncio.get_running_loop().create_task(self._load(n, name, target.base.name))
            load = self._loading[name] = _Load(task)
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        load.waiting += 1
        try:
            # Shielded: a client that goes away must not break off a load that others wait for.
            await asyncio.shield(load.task)
        except asyncio.CancelledError:
            if load.waiting == 1:
                # The last one waits on, inside the guard, until the plain files are gone.
                load.task.cancel()
                await _ended(load.task)
            raise
        finally:
            load.waiting -= 1

    def unload(self, target: Target) -> None:
        """Note that the engine does not have the model (any more)."""
        self._loaded.discard(target.engine_model)

    async def _load(self, n: int, name: str, base: str) -> None:
        directory = scratch.new_directory(self._scratch, name)
        try:
            unsealing = asyncio.get_running_loop().run_in_executor(None, self._unseal, n, directory)
            try:
                await asyncio.shield(unsealing)
            except asyncio.CancelledError:
                await _ended(
                    unsealing
                )  # A thread cannot be broken off; it must not write after us.
                raise
            request = msgspec.json.encode({"name": name, "base": base, "path": str(directory)})
            status, body = await self._verbs.ask("/adapters", request, ANSWER_BYTES_MAX)
        except ConnectionError as error:
            raise unavailable() from error
        finally:
            scratch.erase(directory)
        if status != 200:
            raise _load_failed(status, body)
        if len(self._loaded) >= LOADED_MAX:
            self._loaded.pop()  # whichever: at worst it is loaded once more
        self._loaded.add(name)


@dataclass(slots=True)
class _Load:
    task: asyncio.Task[None]
    waiting: int = 0


async def _ended(future: asyncio.Future[None]) -> None:
    """Return when it has ended, however it ends, and however often we are told to stop waiting."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _load_failed(status: int, body: bytes) -> Error:
    try:
        problem = json.loads(body)["error"]
        message, code = str(problem["message"]), problem.get("code")
    except (ValueError, KeyError, TypeError):
        message, code = "The engine could not load this model.", None
    if status in {429, 503}:
        return Error(Kind.UNAVAILABLE, message, code=code, retry_after_seconds=1)
    if status == 404:
        return unavailable()  # The engine is starting and does not have the base yet.
    return Error(Kind.ENGINE_FAILED, message, code=code)
