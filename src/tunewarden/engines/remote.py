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
from tunewarden.registry.replicas import Replica


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
    """Makes the drivers of replicas, each with the API key of its own."""

    def __init__(self, key_directory: Path, scratch_directory: Path) -> None:
        self._keys = key_directory
        self._scratch = scratch_directory

    def engine(self, base: Base, replica: Replica, unseal: Unseal, note_load: NoteLoad) -> Engine:
        """Return a replica, for a gateway worker."""
        key = keys.read(self._keys, base.name, replica.name)
        if replica.is_pushed_to:
            upstream = Upstream(Address.of_url(replica.url), key)
            control = VllmControl(base, replica, key, self._scratch)
            return VllmEngine(upstream, control, self._scratch, unseal, note_load)
        return RemoteEngine(replica.url, key)

    def control(self, base: Base, replica: Replica, label: str) -> RemoteControl:
        """Return a replica that adapters are pushed to, for deletion."""
        key = keys.read(self._keys, base.name, replica.name)
        return VllmControl(base, replica, key, self._scratch, label)
