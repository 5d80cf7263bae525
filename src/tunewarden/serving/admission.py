"""Admission: who may begin on which model, and cutting what runs when that ends (I1, I2, D4).

One `Admissions` a worker, on its event loop. While anything that can be deleted is being served, the
database's version is polled; when it moved, the states are read again and what runs on what is no
longer active is cut.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, served
from tunewarden.registry.artifacts import ID_LENGTH_MAX
from tunewarden.registry.served import Target
from tunewarden.serving.fence import Fence

POLL_SECONDS = 0.004
# How many models' meanings are kept, which never change; states are never kept.
MEANINGS_MAX = 4096


class Serving:
    """One thing that runs on an artifact, or on a base (`n` is None). `cut` makes it end, once."""

    __slots__ = ("_cut", "is_cut", "n")

    def __init__(self, n: int | None, cut: Callable[[], object]) -> None:
        self.n = n
        self.is_cut = False
        self._cut = cut

    def cut(self) -> None:
        """Make it end now."""
        if not self.is_cut:
            self.is_cut = True
            self._cut()


class Admissions:
    """Everything that this worker serves and that may be deleted meanwhile."""

    def __init__(self, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence
        self._meanings: dict[str, Target] = {}
        self._running: set[Serving] = set()
        self._seen: int | None = None
        self._is_watching = False

    def admit(
        self, name: str, identify: Callable[[Tx], Caller], cut: Callable[[], object]
    ) -> tuple[Target, Serving]:
        """Begin a request on what `name` means; whoever was admitted calls `end`.

        `identify` reads who asks; `cut` is called if the model is deleted meanwhile. Raises what
        `identify` raises, Error(FORBIDDEN), Error(NOT_FOUND); then nothing has begun.
        """
        target = self._meanings.get(name) or self._learn(name)
        n = None if target is None else target.n
        has_begun = n is not None and self._fence.begin(n)
        try:
            # Inside the guard: this read is what makes the admission true (section 5). The key is
            # read by the same look, because each look at the database costs two locks of its own.
            with self._database.read() as tx:
                caller = identify(tx)
                authorize(caller, Action.USE_MODELS)
                may = n is None or (has_begun and served.may_be_used(tx, caller, n))
            if target is None or not may:
                raise missing(name)  # noqa: TRY301  the guard is let go of in one place
        except BaseException:
            if has_begun and n is not None:
                self._fence.end(n)
            raise
        return target, self._note(Serving(n, cut))

    def identify(self, identify: Callable[[Tx], Caller]) -> None:
        """Read who asks, and nothing else. Raises what `identify` raises."""
        with self._database.read() as tx:
            identify(tx)

    def end(self, serving: Serving) -> None:
        """End what was admitted; nothing of it may be served any more."""
        if serving.n is not None:
            self._running.discard(serving)
            self._fence.end(serving.n)

    @contextmanager
    def guarded(self, n: int, absent: Error, cut: Callable[[], object]) -> Iterator[Serving]:
        """Hold the guard of an artifact, a file as well; `cut` is called if it is deleted meanwhile.

        Raises `absent` if it is no longer active.
        """
        if not self._fence.begin(n):
            raise absent
        serving = Serving(n, cut)
        try:
            # Inside the guard, as above.
            if not artifacts.is_active(self._database, n):
                raise absent
            yield self._note(serving)
        finally:
            self.end(serving)

    def may_go_on(self, serving: Serving) -> bool:
        """Tell, by a fresh read, whether one more chunk may leave (I2)."""
        if serving.n is None:
            return True
        if not serving.is_cut and artifacts.is_active(self._database, serving.n):
            return True
        serving.is_cut = True
        return False

    def _learn(self, name: str) -> Target | None:
        target = served.meaning(self._database, name)
        # Not a base's: an operator may have it served from elsewhere.
        if target is not None and target.n is not None:
            if len(self._meanings) >= MEANINGS_MAX:
                del self._meanings[next(iter(self._meanings))]
            self._meanings[name] = target
        return target

    def _note(self, serving: Serving) -> Serving:
        if serving.n is not None:
            self._running.add(serving)
            self._watch()
        return serving

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._seen = None
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._cut_what_was_deleted)

    def _cut_what_was_deleted(self) -> None:
        if not self._running:
            self._is_watching = False
            return
        # First of all, so that a look that fails is not the last one.
        asyncio.get_running_loop().call_later(POLL_SECONDS, self._cut_what_was_deleted)
        version = self._database.version()
        if version == self._seen:
            return
        numbers = {one.n for one in self._running if one.n is not None}
        gone = {n for n in numbers if not artifacts.is_active(self._database, n)}
        self._seen = version
        for serving in [one for one in self._running if one.n in gone]:
            serving.cut()


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
