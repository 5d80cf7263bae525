"""The engine port: the OpenAI inference routes, plus operations on adapters.

The gateway uses one HTTP client for every engine, so that deletion can close any
socket. An engine that serves fine-tuned models can also evict one on demand (D5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tunewarden.engine_protocol.messages import Renewal
from tunewarden.engines.upstream import Upstream
from tunewarden.registry.model_lookup import Target


class Eviction(StrEnum):
    """Why an engine no longer holds a model: what was observed, never what should have happened (I17)."""

    # It had the weights, overwrote them, and read back zeros.
    ZEROED = "zeroed"
    # It did not have them when asked. Earlier evictions overwrote them without our observing it.
    NOT_LOADED = "not_loaded"
    # The process that may have had them has ended.
    RESTARTED = "restarted"
    # It gave no such answer, and its lease is over: it uses the model no more, and overwrites it if it goes on.
    LEASE_ENDED = "lease_ended"


@dataclass(frozen=True, slots=True)
class Evicted:
    """One engine's eviction of a deleted model, for the receipt."""

    engine: str
    how: Eviction
    aborted: int


@dataclass(frozen=True, slots=True)
class ToEvict:
    """A model to evict. `loaded_by`: the incarnation of the engine that last loaded it, None if none did."""

    internal_id: str
    loaded_by: str | None


# Decrypts the files of model `n` into a directory.
Unseal = Callable[[int, Path], None]
# Notes which engine process has model `n`, or may have it from now on; returns the noted one.
NoteLoad = Callable[[int, str, bool], str]


class Engine(Protocol):
    """An engine that serves a base and the models on it."""

    @property
    def upstream(self) -> Upstream:
        """The connections to it."""

    def has(self, target: Target) -> bool:
        """Return whether the engine has the target, as far as is known."""

    async def load(self, target: Target) -> None:
        """Load the target; no-op if it is loaded.

        Called inside the target's guard. Raises Error(UNAVAILABLE), Error(INVALID).
        """

    def unload(self, target: Target) -> None:
        """Note that the engine reported the target as not loaded (it restarted)."""


class Evicting(Protocol):
    """The engine's port for deletion. Synchronous: called from the deleting thread."""

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make the engine abort, evict and overwrite a model; it refuses the name from then on.

        `loaded_by` is the incarnation of the engine that last loaded the model, None if none
        did. A process of this server that does not answer in time, or whose weights do not read back
        as zeros, is killed, which frees its memory; the supervisor restarts it. Raises
        Error(UNAVAILABLE) without either.
        """

    def evict_many(self, models: Sequence[ToEvict], *, within_seconds: float) -> list[Evicted]:
        """Evict several models; return each one's result, in order. Raises like `evict`, and may be repeated then."""
        return [
            self.evict(one.internal_id, loaded_by=one.loaded_by, within_seconds=within_seconds)
            for one in models
        ]


@dataclass(frozen=True, slots=True)
class Residents:
    """Internal ids of the models that an engine has loaded, and of those that it is loading."""

    ready: frozenset[str]
    loading: frozenset[str]


class RemoteControl(Evicting, Protocol):
    """The port of an engine that is not a process of this server. Synchronous."""

    def models(self) -> list[str]:
        """Return the internal ids of the models that the engine has loaded. Raises Error(UNAVAILABLE)."""

    def residents(self, *, within_seconds: float) -> Residents:
        """Return the models that the engine has, and those on their way. Raises Error(UNAVAILABLE, MISCONFIGURED)."""

    def running(self) -> int:
        """Return how many requests the engine runs. Raises Error(UNAVAILABLE)."""


class LeaseRefused(Exception):
    """The engine has another lease than the one that a message names, or none, or is another engine."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Which engine answered: its process, and the SHA-256 of its certificate, empty without TLS."""

    incarnation: str
    certificate: str


class Leasable(Protocol):
    """An engine that uses adapters only while it has a lease. Synchronous."""

    def seen(self) -> Seen:
        """Return which engine answers. Raises Error(UNAVAILABLE); Error(MISCONFIGURED) for one of another version."""

    def renew(self, renewal: Renewal) -> tuple[str, Seen]:
        """Send a renewal; return the engine's nonce, and which engine answered. Raises Error(UNAVAILABLE), LeaseRefused."""


class EngineControl(Evicting, Protocol):
    """The local engine's port for processes that do not serve: runner, start-up, inventory. Synchronous.

    All but `models` raise OSError and ValueError if no engine answers, and Error(MISCONFIGURED) for an engine of
    another version.
    """

    def bases(self, *, within_seconds: float = ...) -> set[str]:
        """Return the names of the engine's bases."""

    def load_base(self, name: str, path: str) -> None:
        """Make the engine load a base. Raises Error(INVALID) for one that it cannot serve."""

    def models(self) -> list[str]:
        """Return the internal ids of the models that the engine has loaded; none without an engine."""
