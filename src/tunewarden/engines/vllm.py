"""Driver of a vLLM with tunewarden-vllm, at a URL; eviction is in `vllm_holder.py`.

An adapter is pushed: its two files are sent, from tmpfs, and the plugin writes them to a tmpfs of its own.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tunewarden.engines.loading import LoadingEngine, ended, in_thread
from tunewarden.engines.port import NoteLoad, Unseal
from tunewarden.engines.upstream import Upstream
from tunewarden.engines.vllm_control import Push, VllmControl, is_without_lease
from tunewarden.errors import Error
from tunewarden.registry.members import Member
from tunewarden.registry.model_lookup import Target

# How long a push waits for an engine that answers and has no lease: it has just started, or joins again.
LEASE_WAIT_SECONDS = 5.0
LOOK_SECONDS = 0.05
REASON_LENGTH_MAX = 300
SEEN_SECONDS = 1.0


class VllmEngine(LoadingEngine):
    """One vLLM, as a gateway worker uses it."""

    # What is noted is evicted when the replica is removed.
    must_be_noted = True

    def __init__(
        self,
        upstream: Upstream,
        control: VllmControl,
        scratch_directory: Path,
        unseal: Unseal,
        note_load: NoteLoad,
        *,
        member: Callable[[], Member | None],
        note_failure: Callable[[int, str | None], None],
    ) -> None:
        """`member` reads the one that the replica has now; `note_failure` notes how a model's last load ended."""
        super().__init__(upstream, scratch_directory, unseal, note_load)
        self._control = control
        self._member = member
        self._note_failure = note_failure

    async def loaded(self, n: int, target: Target) -> None:
        """Load a model, and note it if that fails."""
        try:
            await super().loaded(n, target)
        except Error as error:
            await self._note_end(n, error.message[:REASON_LENGTH_MAX])
            raise
        await self._note_end(n, None)

    async def _note_end(self, n: int, failure: str | None) -> None:
        with suppress(Error):  # on a full disk: what is said of the load is older then
            await in_thread(self._note_failure, n, failure)

    async def hand_over(self, target: Target, directory: Path) -> tuple[int, bytes]:
        """Send the files, for the lease that the engine has. In a thread: they may be large, and are read from memory.

        If cancelled, it ends at once. The member is read inside the model's guard: a deletion of the model sees its
        row (D5).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LEASE_WAIT_SECONDS
        while True:
            member = await in_thread(self._member)
            if member is None:
                # Raises Error if nothing is to be waited for. It cannot be cancelled, and holds the guard.
                await in_thread(self._control.seen, SEEN_SECONDS)
            else:
                found = await self._sent(
                    self._control.new_push(member, target.engine_model, directory)
                )
                if not is_without_lease(*found) or loop.time() > deadline:
                    return found
            if loop.time() > deadline:
                raise ConnectionResetError("the engine has no lease")
            await asyncio.sleep(LOOK_SECONDS)

    @staticmethod
    async def _sent(push: Push) -> tuple[int, bytes]:
        sending = asyncio.create_task(in_thread(push.send))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            push.abort()
            await ended(sending)
            raise
