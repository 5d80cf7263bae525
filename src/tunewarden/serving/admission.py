"""Admission: authorizes requests on models, and aborts them when a model or key is revoked (I1, I2, I19, D4).

One `Admissions` per worker, on its event loop. A cached read is valid as long as the database's stamp
equals the one taken before it: then nothing was committed since (docs/decisions/0011), and until its key expires.

While anything is in flight, the stamp is polled; when it changes, the states are read
again, and requests on a model that is no longer active are aborted. Callers are followed by `standing.py`.
"""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.key_format import Expired, Presented
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry import artifacts, model_lookup
from tunewarden.registry.artifacts import ID_LENGTH_MAX
from tunewarden.registry.model_lookup import Target
from tunewarden.serving import standing
from tunewarden.serving.alias_readings import AliasReadings
from tunewarden.serving.fence import Fence
from tunewarden.serving.in_flight import InFlight, Receiver
from tunewarden.serving.standing import Standing
from tunewarden.token_buckets.buckets import Metered

POLL_SECONDS = 0.004
# Polls between releases of the guards of acknowledged responses.
SWEEP_POLLS = 8
# How long a deletion waits for acknowledgement of sent bytes before it resets the connection (D4). Clients
# acknowledge up to 44 ms after they have read (delayed acknowledgements).
ACK_SECONDS = 0.2
# Size of the cache of reads, by key and model.
READINGS_MAX = 1024


ReadLimits = Callable[[Tx, Caller, Target], Metered | None]


def no_limits(_tx: Tx, _caller: Caller, _target: Target) -> None:
    """Read no rate limits."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A cached read of a key and a model: valid while the database's stamp is `stamp`, and before `until`.

    `digest` is of the presented key, so that another key with the same id does not match. `until` is when the key
    expires, in microseconds: no commit tells that. `metered` are the buckets of the rate limits on such requests.
    """

    stamp: object
    digest: bytes
    caller: Caller
    target: Target
    until: int | None
    metered: Metered | None


class Serving:
    """One request on an artifact, or on a base (`n` is None), of a caller. `abort` aborts it, once.

    The artifact was there when the database's stamp was `stamp`: active, or archived if it `may_be_archived`.
    `ended_by` is the reason of the abort; `action` is what its caller must be allowed to do as long as it runs.
    """

    __slots__ = ("_abort", "action", "caller", "ended_by", "may_be_archived", "n", "stamp")

    def __init__(
        self,
        n: int | None,
        caller: Caller,
        abort: Callable[[], object],
        stamp: object,
        action: Action = Action.USE_MODELS,
        *,
        may_be_archived: bool = False,
    ) -> None:
        self.n = n
        self.caller = caller
        self.action = action
        self.stamp = stamp
        self.may_be_archived = may_be_archived
        self.ended_by: Error | None = None
        self._abort = abort

    def abort(self, reason: Error) -> None:
        """Abort it."""
        if self.ended_by is None:
            self.ended_by = reason
            self._abort()


class Admissions:
    """All requests of this worker on artifacts that may be deleted."""

    def __init__(
        self,
        database: Database,
        fence: Fence,
        clock: Clock,
        read_limits: ReadLimits = no_limits,
    ) -> None:
        """`read_limits` reads the rate limits of a caller on a target."""
        self._database = database
        self._fence = fence
        self._clock = clock
        self._read_limits = read_limits
        self._readings: dict[tuple[str, str], Reading] = {}
        self._aliases = AliasReadings(database)
        self._running: set[Serving] = set()
        self._in_flight = InFlight(fence)
        self._standing = Standing(database, clock)
        self._polls = 0
        self._seen: object = None
        self._is_watching = False

    def admit(
        self,
        name: str,
        presented: Presented,
        identify: Callable[[Tx], Caller],
        abort: Callable[[], object],
        draw: Callable[[], int],
    ) -> tuple[Reading, Serving]:
        """Admit a request on the model or alias `name`; the caller must call `end` or `leave`.

        `identify` reads the caller; `abort` is called if the model is deleted in the meantime; `draw` chooses among
        the models of an alias. Raises what `identify` raises, Error(FORBIDDEN), Error(NOT_FOUND); then nothing was
        admitted.
        """
        reading = self._readings.get((presented.id, name))
        if reading is not None and hmac.compare_digest(reading.digest, presented.digest):
            n = reading.target.n
            if n is None or self._fence.begin(n):
                # This check must be inside the guard: before it, it is a race (section 5).
                if reading.stamp == self._database.stamp() and (
                    reading.until is None or to_micros(self._clock.now()) < reading.until
                ):
                    return reading, self._note(Serving(n, reading.caller, abort, reading.stamp))
                if n is not None:
                    self._fence.end(n)
        meant = self._aliases.cached(name, presented.id, draw)
        if meant is None:
            try:
                return self._read(name, presented, identify, abort)
            except Error as error:
                # A model of the organization comes first, then a base, then an alias, which may have the name of
                # another organization's model.
                if error.kind is not Kind.NOT_FOUND:
                    raise
                meant = self._aliases.read(name, presented.id, draw)
                if meant is None:
                    raise
        try:
            return self.admit(meant, presented, identify, abort, draw)
        except Error as error:
            if error.kind is Kind.NOT_FOUND:
                raise missing(name) from error
            raise

    def _read(
        self,
        name: str,
        presented: Presented,
        identify: Callable[[Tx], Caller],
        abort: Callable[[], object],
    ) -> tuple[Reading, Serving]:
        stamp = self._database.stamp()  # before any read
        target = model_lookup.meaning(self._database, name)
        n = None if target is None else target.n
        has_begun = n is not None and self._fence.begin(n)
        try:
            # Inside the guard, as above.
            with self._database.read() as tx:
                caller = identify(tx)
                authorize(caller, Action.USE_MODELS)
                may = n is None or (has_begun and model_lookup.may_be_used(tx, caller, n))
                if target is None or not may:
                    raise missing(name)  # noqa: TRY301  the guard is let go of in one place
                metered = self._read_limits(tx, caller, target)
        except BaseException as error:
            if has_begun and n is not None:
                self._fence.end(n)
            if isinstance(error, Expired):
                self._standing.note_expired(error)
            raise
        until = caller.expires_at
        reading = Reading(stamp, presented.digest, caller, target, until, metered)
        self._keep(presented.id, name, reading)
        return reading, self._note(Serving(n, caller, abort, stamp))

    def identify(self, identify: Callable[[Tx], Caller]) -> None:
        """Read the caller only. Raises what `identify` raises."""
        try:
            with self._database.read() as tx:
                identify(tx)
        except Expired as error:
            self._standing.note_expired(error)
            raise

    def end(self, serving: Serving) -> None:
        """End an admitted request; nothing more of it may be sent."""
        self._running.discard(serving)
        if serving.n is not None:
            self._fence.end(serving.n)

    def leave(self, serving: Serving, receiver: Receiver) -> None:
        """End an admitted request, whose response was completely written to `receiver`, once it is acknowledged."""
        if serving.n is not None:
            self._running.discard(serving)
            self._in_flight.add(serving.n, receiver)

    @contextmanager
    def guarded(
        self,
        n: int,
        caller: Caller,
        action: Action,
        absent: Error,
        abort: Callable[[], object],
        *,
        may_be_archived: bool = False,
    ) -> Iterator[Serving]:
        """Hold the guard of an artifact (models and files).

        `abort` is called if it is deleted, or archived unless it `may_be_archived`, or if the caller may no longer do
        `action`. Raises `absent` if it is no longer there.
        """
        if not self._fence.begin(n):
            raise absent
        serving = Serving(n, caller, abort, None, action, may_be_archived=may_be_archived)
        try:
            # Inside the guard, as above.
            serving.stamp = self._database.stamp()
            if not self._is_there(serving, n):
                raise absent
            yield self._note(serving)
        finally:
            self.end(serving)

    def may_go_on(self, serving: Serving) -> bool:
        """Return whether one more chunk may be sent, by a current read (I2)."""
        if serving.ended_by is not None:
            return False
        if serving.n is None:
            return True
        stamp = self._database.stamp()
        if serving.stamp == stamp:
            return True
        if self._is_there(serving, serving.n):
            serving.stamp = stamp
            return True
        serving.ended_by = self._gone(serving.n)
        return False

    def _keep(self, key_id: str, name: str, reading: Reading) -> None:
        self._readings.pop((key_id, name), None)
        if len(self._readings) >= READINGS_MAX:
            del self._readings[next(iter(self._readings))]
        self._readings[key_id, name] = reading

    def _note(self, serving: Serving) -> Serving:
        self._running.add(serving)
        self._watch()
        return serving

    def _watch(self) -> None:
        if not self._is_watching:
            self._is_watching = True
            self._seen = None
            self._standing.forget()
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._cut_what_ended)

    def _cut_what_ended(self) -> None:
        if not self._running and not self._in_flight:
            self._is_watching = False
            return
        # Schedule the next poll first, so that a failing check is not the last one.
        asyncio.get_running_loop().call_later(POLL_SECONDS, self._cut_what_ended)
        self._polls += 1
        if self._polls % SWEEP_POLLS == 0:
            self._in_flight.sweep()
        stamp = self._database.stamp()
        if self._polls % standing.POLLS == 0:
            self._standing.look(self._running, stamp)
        if self._standing.unread:
            self._standing.read_some(self._running)
        if stamp != self._seen:
            self._cut_what_was_deleted(stamp)

    def _cut_what_was_deleted(self, stamp: object) -> None:
        numbers = {one.n for one in self._running if one.n is not None} | self._in_flight.models()
        gone = {n for n in numbers if not artifacts.is_active(self._database, n)}
        # Poll again soon while responses wait for acknowledgement or connections are being closed.
        now = asyncio.get_running_loop().time()
        self._seen = None if self._in_flight.abort(gone, now, ACK_SECONDS) else stamp
        for serving in [one for one in self._running if one.n in gone]:
            assert serving.n is not None, "a base is never gone"
            if not self._is_there(serving, serving.n):
                serving.abort(self._gone(serving.n))

    def _is_there(self, serving: Serving, n: int) -> bool:
        """Return whether the artifact of a request may go on being sent."""
        if serving.may_be_archived:
            return artifacts.is_visible(self._database, n)
        return artifacts.is_active(self._database, n)

    def _gone(self, n: int) -> Error:
        """Return the error that ends a request on an artifact which is not active any more."""
        return archived() if artifacts.is_archived(self._database, n) else deleted()


def missing(name: str) -> Error:
    """Return the error of inference on a model that is unknown, foreign, archived or deleted."""
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


def archived() -> Error:
    """Return the error that ends a request whose model was archived while it ran."""
    return Error(
        Kind.NOT_FOUND,
        "The model was archived while this request was running.",
        code="model_archived",
    )
