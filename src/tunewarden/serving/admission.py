"""Admission: who may begin on which model, and cutting what runs when that ends (I1, I2, D4).

One `Admissions` a worker, on its event loop. While any fine-tuned model is being served, the
database's version is polled; when it moved, the states are read again and what runs on a model
that is no longer active is cut.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, bases, models
from tunewarden.registry.artifacts import ID_LENGTH_MAX, State
from tunewarden.registry.bases import Base
from tunewarden.registry.models import Model
from tunewarden.serving.fence import Fence

POLL_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class Target:
    """What a request was admitted to: a base, and the fine-tuned model on it if it named one."""

    base: Base
    model: Model | None

    @property
    def public_id(self) -> str:
        """What the caller calls it."""
        return self.model.id if self.model else self.base.name

    @property
    def engine_model(self) -> str:
        """What its engine calls it."""
        return self.model.internal_id if self.model else self.base.engine_model


class Serving:
    """One thing that runs on a model. `cut` makes it end; it is called at most once."""

    __slots__ = ("_cut", "is_cut", "n")

    def __init__(self, n: int, cut: Callable[[], object]) -> None:
        self.n = n
        self.is_cut = False
        self._cut = cut

    def cut(self) -> None:
        """Make it end now."""
        if not self.is_cut:
            self.is_cut = True
            self._cut()


class Admissions:
    """Everything that this worker serves on fine-tuned models."""

    def __init__(self, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence
        self._running: set[Serving] = set()
        self._watching: asyncio.Task[None] | None = None

    def find(self, caller: Caller, name: str) -> Target:
        """Return what `name` means to the caller. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.USE_MODELS)
        if (base := bases.find(self._database, name)) is not None:
            return Target(base, None)
        model = models.find(self._database, caller, name)
        if model is None or model.state is not State.ACTIVE:
            raise missing(name)
        base = bases.find(self._database, model.base)
        if base is None:
            raise RuntimeError("a model's base is a foreign key")
        return Target(base, model)

    @contextmanager
    def admitted(self, target: Target, cut: Callable[[], object]) -> Iterator[Serving | None]:
        """Hold the guard of a fine-tuned model; `cut` is called if it is deleted meanwhile.

        Nothing may be served after the block has ended. A base needs no guard and yields None.
        Raises Error(NOT_FOUND) if the model is no longer active.
        """
        if target.model is None:
            yield None
            return
        with self.guarded(target.model.n, missing(target.public_id), cut) as serving:
            yield serving

    @contextmanager
    def guarded(self, n: int, absent: Error, cut: Callable[[], object]) -> Iterator[Serving]:
        """Hold the guard of an artifact, a file as well; `cut` is called if it is deleted meanwhile.

        Raises `absent` if it is no longer active.
        """
        if not self._fence.begin(n):
            raise absent
        serving = Serving(n, cut)
        try:
            # Inside the guard: this read is what makes the admission true (section 5).
            if not artifacts.is_active(self._database, n):
                raise absent
            self._running.add(serving)
            self._watch()
            yield serving
        finally:
            self._running.discard(serving)
            self._fence.end(n)

    def may_go_on(self, serving: Serving | None) -> bool:
        """Tell, by a fresh read, whether one more chunk may leave (I2)."""
        if serving is None:
            return True
        if not serving.is_cut and artifacts.is_active(self._database, serving.n):
            return True
        serving.is_cut = True
        return False

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._cut_what_was_deleted())

    async def _cut_what_was_deleted(self) -> None:
        seen = None
        while self._running:
            version = self._database.version()
            if version != seen:
                seen = version
                states = {
                    n: artifacts.is_active(self._database, n)
                    for n in {one.n for one in self._running}
                }
                for serving in [one for one in self._running if not states[one.n]]:
                    serving.cut()
            await asyncio.sleep(POLL_SECONDS)


def missing(name: str) -> Error:
    """Return the answer to inference on a model that is unknown, foreign, archived or deleted."""
    shown = name[:ID_LENGTH_MAX]
    return Error(
        Kind.NOT_FOUND,
        f"The model `{shown}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def deleted() -> Error:
    """Return the error that ends a request whose model was deleted while it ran."""
    return Error(
        Kind.NOT_FOUND,
        "The model was deleted while this request was running.",
        code="model_deleted",
    )
