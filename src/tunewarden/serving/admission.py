"""Admission: who may begin on which model, and cutting what runs when that ends (I1, I2, D4).

One `Admissions` a worker, on its event loop. What was read is believed as long as the database's stamp
is the one that was taken before: then nothing was committed since, and reading again would say the same.

While anything that can be deleted is being served, or an answer of it leaves, the stamp is polled; when it
moved, the states are read again and what runs on what is no longer active is cut.
"""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.keys import Presented
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, served
from tunewarden.registry.artifacts import ID_LENGTH_MAX
from tunewarden.registry.served import Target
from tunewarden.serving.fence import Fence
from tunewarden.serving.leaving import Leaving, Receiver

POLL_SECONDS = 0.004
# After so many polls the answers that have left are let go of.
SWEEP_POLLS = 8
# How many pairs of a key and a model are kept with what was last read of them.
READINGS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What the database said of a key and a model: true as long as its stamp is `stamp`.

    `digest` is of the key that was presented; whoever presents another one learns nothing from this.
    """

    stamp: object
    digest: bytes
    caller: Caller
    target: Target


class Serving:
    """One thing that runs on an artifact, or on a base (`n` is None). `cut` makes it end, once.

    The artifact was active when the database's stamp was `stamp`.
    """

    __slots__ = ("_cut", "is_cut", "n", "stamp")

    def __init__(self, n: int | None, cut: Callable[[], object], stamp: object) -> None:
        self.n = n
        self.stamp = stamp
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
        self._readings: dict[tuple[str, str], Reading] = {}
        self._running: set[Serving] = set()
        self._leaving = Leaving(fence)
        self._polls = 0
        self._seen: object = None
        self._is_watching = False

    def admit(
        self,
        name: str,
        presented: Presented,
        identify: Callable[[Tx], Caller],
        cut: Callable[[], object],
    ) -> tuple[Reading, Serving]:
        """Begin a request on what `name` means; whoever was admitted calls `end`.

        `identify` reads who presents the key; `cut` is called if the model is deleted meanwhile. Raises
        what `identify` raises, Error(FORBIDDEN), Error(NOT_FOUND); then nothing has begun.
        """
        reading = self._readings.get((presented.id, name))
        if reading is not None and hmac.compare_digest(reading.digest, presented.digest):
            n = reading.target.n
            if n is None or self._fence.begin(n):
                # Inside the guard: this look is what makes the admission true (section 5).
                if reading.stamp == self._database.stamp():
                    return reading, self._note(Serving(n, cut, reading.stamp))
                if n is not None:
                    self._fence.end(n)
        return self._read(name, presented, identify, cut)

    def _read(
        self,
        name: str,
        presented: Presented,
        identify: Callable[[Tx], Caller],
        cut: Callable[[], object],
    ) -> tuple[Reading, Serving]:
        stamp = self._database.stamp()  # before anything is read
        target = served.meaning(self._database, name)
        n = None if target is None else target.n
        has_begun = n is not None and self._fence.begin(n)
        try:
            # Inside the guard, as above.
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
        reading = Reading(stamp, presented.digest, caller, target)
        self._keep(presented.id, name, reading)
        return reading, self._note(Serving(n, cut, stamp))

    def identify(self, identify: Callable[[Tx], Caller]) -> None:
        """Read who asks, and nothing else. Raises what `identify` raises."""
        with self._database.read() as tx:
            identify(tx)

    def end(self, serving: Serving) -> None:
        """End what was admitted; nothing of it may be served any more."""
        if serving.n is not None:
            self._running.discard(serving)
            self._fence.end(serving.n)

    def leave(self, serving: Serving, receiver: Receiver) -> None:
        """End what was admitted, and whose answer `receiver` was written whole, once all of it has left."""
        if serving.n is not None:
            self._running.discard(serving)
            self._leaving.add(serving.n, receiver)

    @contextmanager
    def guarded(self, n: int, absent: Error, cut: Callable[[], object]) -> Iterator[Serving]:
        """Hold the guard of an artifact, a file as well; `cut` is called if it is deleted meanwhile.

        Raises `absent` if it is no longer active.
        """
        if not self._fence.begin(n):
            raise absent
        serving = Serving(n, cut, None)
        try:
            # Inside the guard, as above.
            serving.stamp = self._database.stamp()
            if not artifacts.is_active(self._database, n):
                raise absent
            yield self._note(serving)
        finally:
            self.end(serving)

    def may_go_on(self, serving: Serving) -> bool:
        """Tell, by a fresh look, whether one more chunk may leave (I2)."""
        if serving.n is None:
            return True
        if not serving.is_cut:
            stamp = self._database.stamp()
            if serving.stamp == stamp:
                return True
            if artifacts.is_active(self._database, serving.n):
                serving.stamp = stamp
                return True
        serving.is_cut = True
        return False

    def _keep(self, key_id: str, name: str, reading: Reading) -> None:
        self._readings.pop((key_id, name), None)
        if len(self._readings) >= READINGS_MAX:
            del self._readings[next(iter(self._readings))]
        self._readings[key_id, name] = reading

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
        if not self._running and not self._leaving:
            self._is_watching = False
            return
        # First of all, so that a look that fails is not the last one.
        asyncio.get_running_loop().call_later(POLL_SECONDS, self._cut_what_was_deleted)
        self._polls += 1
        if self._polls % SWEEP_POLLS == 0:
            self._leaving.sweep()
        stamp = self._database.stamp()
        if stamp == self._seen:
            return
        numbers = {one.n for one in self._running if one.n is not None} | self._leaving.models()
        gone = {n for n in numbers if not artifacts.is_active(self._database, n)}
        # What was dropped is closed in the loop's next turn: then it is looked at again.
        self._seen = None if self._leaving.cut(gone) else stamp
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
