"""Driver of a vLLM with tunewarden-vllm, at a URL; eviction is in `vllm_control.py`.

An adapter is pushed: its two files are sent, from tmpfs, and the plugin writes them to a tmpfs of its own.
"""

import asyncio
from pathlib import Path

from tunewarden.engines.loading import LoadingEngine, ended, in_thread
from tunewarden.engines.port import NoteLoad, Unseal
from tunewarden.engines.upstream import Upstream
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.registry.model_lookup import Target


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
    ) -> None:
        super().__init__(upstream, scratch_directory, unseal, note_load)
        self._control = control

    async def hand_over(self, target: Target, directory: Path) -> tuple[int, bytes]:
        """Send the files. In a thread: they may be large, and are read from memory. If cancelled, it ends at once."""
        push = self._control.new_push(target.engine_model, directory)
        sending = asyncio.create_task(in_thread(push.send))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            push.abort()
            await ended(sending)
            raise
