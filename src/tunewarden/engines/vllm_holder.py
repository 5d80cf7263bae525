"""A vLLM as deletion knows it: it evicts, or its lease ends (D5)."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.engine_protocol.messages import EvictedAdapter
from tunewarden.engines import scratch
from tunewarden.engines.loading import UNKNOWN
from tunewarden.engines.member_watch import MemberWatch
from tunewarden.engines.port import Evicted, Eviction, RemoteControl, Residents, Seen
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.errors import Error, Kind
from tunewarden.registry.members import Member
from tunewarden.registry.replicas import Replica

# At least so long: a lease of 5 seconds and what it takes to see its end.
WITHIN_SECONDS = 7.0
# For an engine that is asked once more although its lease has ended.
LEAST_SECONDS = 0.5
# So that a lease that was renewed is seen to be, and an engine that came back is asked again.
ASK_SECONDS = 2.0
POLL_SECONDS = 0.1
T = TypeVar("T")


class VllmHolder(RemoteControl):
    """One replica. `evict` may be called from any thread."""

    def __init__(
        self,
        control: VllmControl,
        replica: Replica,
        database: Database,
        clock: Clock,
        scratch_directory: Path,
    ) -> None:
        self._control = control
        self._replica = replica
        self._database = database
        self._clock = clock
        self._scratch = scratch_directory

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        """Make vLLM abort, evict and overwrite a model, or wait until every lease that it has is over.

        It is not this server's process, so it is not killed. Raises Error(UNAVAILABLE) if neither is seen in time: the
        deletion goes on.
        """
        deadline = self._clock.monotonic() + max(within_seconds, WITHIN_SECONDS)
        watch = MemberWatch(self._database, self._clock, self._replica.n)
        while True:
            found = self._look(watch, internal_id, loaded_by, deadline)
            if found is not None:
                scratch.erase_all_of(self._scratch, [internal_id])
                return found
            if self._clock.monotonic() >= deadline:
                raise Error(
                    Kind.UNAVAILABLE,
                    f"The vLLM '{self._control.label}' has not evicted the model yet.",
                    retry_after_seconds=1,
                )
            self._clock.sleep(POLL_SECONDS)

    def models(self) -> list[str]:
        """Return the internal ids of the models that it has loaded; none once its lease is over.

        Raises Error(UNAVAILABLE).
        """
        return self._said(self._control.models, [])

    def residents(self, *, within_seconds: float) -> Residents:
        """Return the models that it has loaded, and those on their way. Raises Error(UNAVAILABLE, MISCONFIGURED)."""
        return self._control.residents(within_seconds=within_seconds)

    def running(self) -> int:
        """Return how many requests it runs; none once its lease is over. Raises Error(UNAVAILABLE)."""
        return self._said(self._control.running, 0)

    def _said(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return what it says; if it says nothing until its lease is over, what holds then."""
        deadline = self._clock.monotonic() + WITHIN_SECONDS
        watch = MemberWatch(self._database, self._clock, self._replica.n)
        while True:
            unended = watch.look()
            try:
                return ask()
            except Error:
                if not unended and watch.members():
                    return otherwise
                if not unended or self._clock.monotonic() >= deadline:
                    raise
            self._clock.sleep(POLL_SECONDS)

    def _look(
        self, watch: MemberWatch, internal_id: str, loaded_by: str | None, deadline: float
    ) -> Evicted | None:
        """Ask once; return what is proven then."""
        left = min(
            watch.left_seconds(watch.look()), deadline - self._clock.monotonic(), ASK_SECONDS
        )
        answer = self._control.evict(internal_id, within_seconds=max(left, LEAST_SECONDS))
        unended, known = watch.look(), watch.members()
        if answer is not None and known and not any(_is_of(one, answer[1]) for one in known):
            answer = None  # another engine's word, which no lease binds to what was pushed
        if answer is not None:
            unended = [one for one in unended if not _is_of(one, answer[1])]
        if unended or (answer is None and not known):
            return None
        return self._evicted(answer, loaded_by)

    def _evicted(
        self, answer: tuple[EvictedAdapter, Seen] | None, loaded_by: str | None
    ) -> Evicted:
        engine = f"vllm:{self._control.label}"
        if answer is None:
            return Evicted(engine, Eviction.LEASE_ENDED, aborted=0)
        evicted, seen = answer
        if evicted.was_loaded:
            return Evicted(engine, Eviction.ZEROED, evicted.aborted)
        # What answers now cannot speak for the process that had the model, whose end nobody saw.
        is_another = loaded_by not in {None, UNKNOWN, seen.incarnation}
        return Evicted(engine, Eviction.LEASE_ENDED if is_another else Eviction.NOT_LOADED, 0)


def _is_of(member: Member, seen: Seen) -> bool:
    return Seen(member.incarnation, member.certificate) == seen
