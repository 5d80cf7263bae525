"""Driver of a vLLM with tunewarden-vllm, at a URL; eviction is in `vllm_control.py`.

An adapter is pushed: its two files are sent, from tmpfs, and the plugin writes them to a tmpfs of its own.
"""

from pathlib import Path

from tunewarden.engines.loading import LoadingEngine, in_thread
from tunewarden.engines.port import NoteLoad, Unseal
from tunewarden.engines.upstream import Upstream
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.registry.model_lookup import Target


class VllmEngine(LoadingEngine):
    """One vLLM, as a gateway worker uses it."""

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
        """Send the files. In a thread: they may be large, and are read from memory."""
        return await in_thread(self._control.push, target.engine_model, directory)
