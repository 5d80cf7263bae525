"""Drivers of remote OpenAI-compatible servers: plain pass-through, or a vLLM that adapters are pushed to."""

from functools import partial
from pathlib import Path

from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.db.database import Database
from tunewarden.engines import keys
from tunewarden.engines.address import Address
from tunewarden.engines.lease_agent import LeaseAgent
from tunewarden.engines.port import Engine, NoteLoad, RemoteControl, Unseal
from tunewarden.engines.tls import ClientTls
from tunewarden.engines.upstream import Upstream
from tunewarden.engines.vllm import VllmEngine
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.engines.vllm_holder import VllmHolder
from tunewarden.registry import members, replicas
from tunewarden.registry.bases import Base
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.replicas import Replica


class RemoteEngine:
    """One server at a URL. It has none of our models, so only its base can be used."""

    def __init__(self, url: str, key: str | None, tls: ClientTls) -> None:
        self.upstream = Upstream(Address.of_url(url), key, tls)

    def has(self, target: Target) -> bool:
        """Return True: there is nothing to load."""
        return True

    async def load(self, target: Target) -> None:
        """Do nothing."""

    def unload(self, target: Target) -> None:
        """Do nothing."""


class RemoteEngines:
    """Makes the drivers of replicas, each with the API key of its own."""

    def __init__(
        self, config: Config, database: Database, clock: Clock, scratch_directory: Path
    ) -> None:
        self._config = config
        self._database = database
        self._clock = clock
        self._scratch = scratch_directory

    def engine(self, base: Base, replica: Replica, unseal: Unseal, note_load: NoteLoad) -> Engine:
        """Return a replica, for a gateway worker."""
        key = keys.read(self._config.engine_keys, base.name, replica.name)
        if not replica.is_pushed_to:
            tls = ClientTls(self._config.certificates, accepts_public=True)
            return RemoteEngine(replica.url, key, tls)
        return VllmEngine(
            Upstream(Address.of_url(replica.url), key, ClientTls(self._config.certificates)),
            self._client(base, replica, _label(replica)),
            self._scratch,
            unseal,
            note_load,
            member=partial(members.live, self._database, replica.n),
            note_failure=partial(replicas.note_failure, self._database, replica.n),
        )

    def control(self, base: Base, replica: Replica, label: str) -> RemoteControl:
        """Return a replica that adapters are pushed to, for deletion. `label`: its name in receipts."""
        client = self._client(base, replica, label)
        return VllmHolder(client, replica, self._database, self._clock, self._scratch)

    def lease_agent(self, base: Base, replica: Replica) -> LeaseAgent:
        """Return what holds the lease of a replica that adapters are pushed to, for the runner."""
        return LeaseAgent(
            self._database,
            self._clock,
            replica.n,
            self._client(base, replica, _label(replica)),
            lease_seconds=self._config.engine_lease_seconds,
        )

    def _client(self, base: Base, replica: Replica, label: str) -> VllmControl:
        key = keys.read(self._config.engine_keys, base.name, replica.name)
        return VllmControl(base, replica, key, ClientTls(self._config.certificates), label)


def _label(replica: Replica) -> str:
    return f"{replica.base}/{replica.name}"
