"""Drivers of remote OpenAI-compatible servers: plain pass-through, or a vLLM that adapters are pushed to."""

from pathlib import Path

from tunewarden.engines import keys
from tunewarden.engines.address import Address
from tunewarden.engines.port import Engine, NoteLoad, RemoteControl, Unseal
from tunewarden.engines.upstream import Upstream
from tunewarden.engines.vllm import VllmEngine
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.registry.bases import Base
from tunewarden.registry.model_lookup import Target


class RemoteEngine:
    """One server at a URL. It has none of our models, so only its base can be used."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.upstream = Upstream(Address.of_url(url), key)

    def has(self, target: Target) -> bool:
        """Return True: there is nothing to load."""
        return True

    async def load(self, target: Target) -> None:
        """Do nothing."""

    def unload(self, target: Target) -> None:
        """Do nothing."""


class RemoteEngines:
    """Makes the drivers of remote bases, each with the API key of its own."""

    def __init__(self, key_directory: Path, scratch_directory: Path) -> None:
        self._keys = key_directory
        self._scratch = scratch_directory

    def engine(self, base: Base, unseal: Unseal, note_load: NoteLoad) -> Engine:
        """Return the engine of a base, for a gateway worker."""
        key = keys.read(self._keys, base.name)
        if base.is_pushed_to:
            return VllmEngine(base, key, self._scratch, unseal, note_load)
        return RemoteEngine(base.location, key)

    def control(self, base: Base) -> RemoteControl:
        """Return the engine of a base that adapters are pushed to, for deletion."""
        return VllmControl(base, keys.read(self._keys, base.name), self._scratch)
