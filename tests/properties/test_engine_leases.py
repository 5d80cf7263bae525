"""No piece of an adapter's output leaves an engine after a deleter counted its lease out, whatever network and clocks do.

The engine's own lease, the agent that renews it and the deleter's watch run on clocks of different rates. The network
delivers renewals at once, late, or never; the engine's process, the agent's and the deleter's stop at any time. Controls
take one part of the protocol away, and must be found.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.engine_protocol.lease import RATE_ERROR
from tunewarden.engine_protocol.messages import Renewal
from tunewarden.engines import member_watch
from tunewarden.engines.lease_agent import LeaseAgent
from tunewarden.engines.member_watch import MemberWatch
from tunewarden.engines.port import LeaseRefused, Seen
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases, members, replicas
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.members import MemberState
from tunewarden_vllm import leases
from tunewarden_vllm.leases import Lease
from tunewarden_vllm.leases import Leases as EngineLeases
from tunewarden_vllm.refusals import Refused

LEASE_SECONDS = 5.0
START = datetime(2026, 1, 1, tzinfo=UTC)
RATES = strategies.sampled_from([1 - RATE_ERROR, 1.0, 1 + RATE_ERROR])
PAUSES = strategies.one_of(
    strategies.floats(0.01, 2.0), strategies.sampled_from([4.94, 4.96, 5.0, 5.05, 5.56, 6.0])
)
SHORT = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Time:
    """True time, which nobody sees."""

    now: float = 1000.0


@dataclass
class RatedClock:
    """A `Clock` of one host. Its wall time is that of nobody else."""

    time: Time
    rate: float = 1.0
    offset: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return self.offset + self.time.now * self.rate

    def sleep(self, seconds: float) -> None:
        self.time.now += seconds


@dataclass
class Network:
    """The way from the agent to the engine, which has leases and no adapters."""

    engine: EngineLeases
    incarnation: str = "process-1"
    mode: str = "delivers"
    late: list[Renewal] = field(default_factory=list)

    def seen(self) -> Seen:
        if self.mode != "delivers":
            raise _lost()
        return Seen(self.incarnation, "")

    def renew(self, renewal: Renewal) -> tuple[str, Seen]:
        if self.mode == "delays":
            self.late.append(renewal)
        if self.mode in {"delays", "drops"}:
            raise _lost()
        nonce = self.deliver(renewal)
        if self.mode == "loses answers":
            raise _lost()
        return nonce, Seen(self.incarnation, "")

    def holds(self, member: str) -> bool:
        try:
            return self.engine.held(member).holds()
        except Refused:
            return False

    def deliver(self, renewal: Renewal) -> str:
        try:
            if renewal.begins:
                begun = self.engine.begin(renewal.member, renewal.seconds, renewal.replaces)
                return asyncio.run(begun) or ""
            return self.engine.renew(renewal.member, renewal.nonce)
        except Refused as error:
            raise LeaseRefused from error


class Leases(RuleBasedStateMachine):
    """One replica, its agent and one deleter."""

    database: SqliteDatabase
    time: Time
    gateway: RatedClock
    numbers = itertools.count(1)

    @initialize(engine=RATES, gateway=RATES, offset=strategies.sampled_from([0.0, -900.0, 1e6]))
    def begin(self, engine: float, gateway: float, offset: float) -> None:
        self.gateway.rate = gateway
        self.engine_clock = RatedClock(self.time, engine, offset)
        self.network = Network(self.new_engine())
        with self.database.write(survives=False) as tx:
            name = f"r{next(self.numbers)}"
            self.replica_n = replicas.add(
                tx, base="base", url=f"http://127.0.0.1:1/{name}", rank_max=8, name=name
            ).n
        self.restart_agent()
        self.restart_deleter()
        self.counted_out: set[str] = set()

    def new_engine(self) -> EngineLeases:
        return EngineLeases(self.engine_clock.monotonic, _drops)

    @rule()
    def restart_agent(self) -> None:
        self.agent = LeaseAgent(
            self.database, self.gateway, self.replica_n, self.network, lease_seconds=LEASE_SECONDS
        )

    @rule()
    def restart_deleter(self) -> None:
        self.watch = MemberWatch(self.database, self.gateway, self.replica_n)

    @rule(
        mode=strategies.sampled_from(["delivers", "delivers", "delays", "drops", "loses answers"])
    )
    def change_network(self, mode: str) -> None:
        self.network.mode = mode

    @rule()
    def step_agent(self) -> None:
        self.agent.step()
        self.note_ended()

    @rule(times=strategies.integers(1, 6))
    def renew_in_time(self, times: int) -> None:
        for _ in range(times):
            self.time.now += min(self.agent.step(), 2.0)
        self.note_ended()

    @rule()
    def deliver_late(self) -> None:
        if self.network.late:
            with suppress(LeaseRefused):
                self.network.deliver(self.network.late.pop(0))

    @rule()
    def restart_engine(self) -> None:
        self.network.engine = self.new_engine()
        self.network.incarnation = f"process-{next(self.numbers)}"

    @rule(seconds=PAUSES)
    def pass_time(self, seconds: float) -> None:
        self.time.now += seconds

    @rule()
    def look(self) -> None:
        self.watch.look()
        self.note_ended()

    @rule(seconds=PAUSES)
    def delete(self, seconds: float) -> None:
        """As D5 does it: look, wait, look."""
        self.watch.look()
        self.time.now += seconds
        self.look()

    @rule(before=PAUSES, after=PAUSES)
    def delete_while_a_renewal_is_delayed(self, before: float, after: float) -> None:
        self.renew_in_time(3)
        self.network.mode = "delays"
        self.step_agent()
        self.watch.look()
        self.time.now += before
        self.deliver_late()
        self.time.now += after
        self.look()
        self.network.mode = "delivers"

    def note_ended(self) -> None:
        found = members.of(self.database, self.replica_n)
        self.counted_out |= {one.id for one in found if one.state is MemberState.ENDED}

    @invariant()
    def nothing_leaves_after_the_end(self) -> None:
        assert not [member for member in self.counted_out if self.network.holds(member)]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> type[Leases]:
    """Return the state machine on a database of its own; each example has a replica of its own."""
    time = Time()
    gateway = RatedClock(time)
    path = tmp_path_factory.mktemp("leases") / "t.sqlite"
    database = SqliteDatabase(path, gateway, migrate=True)
    with database.write() as tx:
        bases.add(
            tx,
            name="base",
            kind=BaseKind.REMOTE,
            location="http://127.0.0.1:1/v1",
            engine_model="base",
            modules={},
            rank_max=8,
        )
    return type("M", (Leases,), {"database": database, "time": time, "gateway": gateway})


async def _drops(_: Lease) -> bool:
    return True


def _lost() -> Error:
    return Error(Kind.UNAVAILABLE, "lost")


def test_nothing_leaves_after_a_lease_was_counted_out(machine: type[Leases]) -> None:
    run_state_machine_as_test(machine, settings=SHORT)


def _never_lapse(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "held_seconds", lambda _: float("inf"))


def _count_from_arrival(patch: pytest.MonkeyPatch) -> None:
    """As if the lease began when a renewal arrives."""
    renew = Lease.renew

    def later(lease: Lease, nonce: str) -> str:
        if nonce in lease._nonces:  # the control's
            lease._nonces[nonce] = lease._clock()
        return renew(lease, nonce)

    patch.setattr(Lease, "renew", later)


def _do_not_count(patch: pytest.MonkeyPatch) -> None:
    """As if renewals were not counted before they are sent."""
    patch.setattr(members, "count_renewal", lambda *_: True)


def _wait_for_less(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(member_watch, "ended_seconds", lambda seconds: seconds * 0.9)


def _partition(run: Leases, seconds: float = 6.0) -> None:
    run.renew_in_time(3)
    run.step_agent()
    run.step_agent()  # its nonce is new
    run.change_network("drops")
    run.delete(seconds)


def _short_partition(run: Leases) -> None:
    _partition(run, 4.6)


def _delay(run: Leases) -> None:
    run.delete_while_a_renewal_is_delayed(1.5, 4.1)


def _renewals_go_on(run: Leases) -> None:
    run.look()
    run.renew_in_time(5)
    run.look()


@pytest.mark.parametrize("script", [_partition, _short_partition, _delay, _renewals_go_on])
@pytest.mark.parametrize(
    "control", [None, _never_lapse, _count_from_arrival, _do_not_count, _wait_for_less]
)
def test_the_controls_fire(
    machine: type[Leases],
    script: Callable[[Leases], None],
    control: Callable[[pytest.MonkeyPatch], None] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fires = (control, script) in {
        (_never_lapse, _partition),
        (_never_lapse, _delay),
        (_count_from_arrival, _delay),
        (_do_not_count, _renewals_go_on),
        (_wait_for_less, _short_partition),
    }
    if control is not None:
        control(monkeypatch)
    run = machine()
    run.begin(engine=1.0, gateway=1.0, offset=0.0)
    run.agent.step()
    script(run)
    if fires:
        with pytest.raises(AssertionError):
            run.nothing_leaves_after_the_end()
    else:
        run.nothing_leaves_after_the_end()
