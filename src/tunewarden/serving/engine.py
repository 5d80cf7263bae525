"""The engine port: whatever answers the OpenAI inference routes, plus verbs of ours for adapters.

The gateway talks HTTP to every engine through one upstream client, so that deletion can close any
socket. An engine that serves fine-tuned models can also forget one on demand (D5).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tunewarden.registry.served import Target
from tunewarden.serving.upstream import Upstream


class Eviction(StrEnum):
    """How an engine came to hold a model no more."""

    EVICTED = "evicted"
    NOT_RUNNING = "not_running"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class Evicted:
    """What one engine did with a deleted model: what goes into the receipt."""

    engine: str
    how: Eviction
    aborted: int
    zeroed: bool


class Engine(Protocol):
    """Where requests to a base and to the models on it go."""

    @property
    def upstream(self) -> Upstream:
        """The connections to it."""

    def has(self, target: Target) -> bool:
        """Tell whether the engine has the target, as far as is known."""

    async def load(self, target: Target) -> None:
        """Return when the engine has the target; does nothing if it was loaded before.

        Called inside the target's guard. Raises Error(UNAVAILABLE), Error(INVALID).
        """

    def unload(self, target: Target) -> None:
        """Note that the engine said it does not have the target (it was started anew)."""


class Evicting(Protocol):
    """An engine as deletion sees it. Synchronous: it is called from the thread that deletes."""

    def evict(self, internal_id: str, *, within_seconds: float) -> Evicted:
        """Make the engine abort, forget and overwrite a model; it refuses the name for ever after.

        An engine that does not answer in time is killed, which frees its memory; the supervisor
        starts a new one. Raises Error(UNAVAILABLE) when neither could be done.
        """
