"""A model's life against a simple reference: who is told what, through any row of calls (I4 to I9)."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from tests.fakes.clock import HandClock
from tests.lab import budgets
from tests.lab.judge import judge
from tests.lab.world import Made, World, copied, new_world

from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, Role, authorize
from tunewarden.registry import models
from tunewarden.registry.artifacts import ArtifactKind, State

ORGANIZATIONS = ("acme", "globex")
REPLAY = timedelta(minutes=30)
ROUNDS_MAX = 8


@dataclass
class Expected:
    """What the reference knows of one model."""

    made: Made
    organization: str
    deleted_by: str = ""
    idempotency_key: str | None = None
    since: timedelta = timedelta()
    receipt: bytes = b""


@dataclass
class Ground:
    """A closed installation to copy."""

    world: World
    callers: dict[tuple[str, str], Caller] = field(default_factory=dict)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with new_world() as world:
        ground = Ground(world)
        for organization in ORGANIZATIONS:
            for name, role in (("ann", Role.OWNER), ("bob", Role.OWNER), ("rae", Role.READER)):
                ground.callers[organization, name] = world.caller(role, organization)
        world.close()
        gc.collect()
        yield ground


class Life(RuleBasedStateMachine):
    """Calls in any order, by anybody, with restarts between."""

    ground: Ground
    told: dict[str, int]
    alive = Bundle("alive")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.world = self.stack.enter_context(copied(self.ground.world))
        self.world.restart()
        self.expected: list[Expected] = []
        clock = self.world.clock
        assert isinstance(clock, HandClock)
        self.clock = clock

    def teardown(self) -> None:
        self.world.close()
        self.stack.close()

    def _elapsed(self) -> timedelta:
        return timedelta(seconds=self.clock.monotonic())

    def _told(self, what: str) -> None:
        self.told[what] = self.told.get(what, 0) + 1

    @initialize(target=alive)
    def creates_one_for_each(self) -> object:
        made = [self.creates(organization) for organization in ORGANIZATIONS]
        return multiple(*made)

    @rule(target=alive, organization=st.sampled_from(ORGANIZATIONS))
    def creates(self, organization: str) -> object:
        if len(self.expected) >= 4:
            return multiple()
        made = self.world.make(self.ground.callers[organization, "ann"])
        one = Expected(made, organization)
        self.expected.append(one)
        return one

    @rule(
        one=alive,
        organization=st.sampled_from(ORGANIZATIONS),
        name=st.sampled_from(["ann", "bob", "rae"]),
        retry=st.sampled_from([0, 0, 1, 2]),
        key=st.sampled_from([None, None, "k1", "k2"]),
    )
    def deletes(
        self, one: Expected, organization: str, name: str, retry: int, key: str | None
    ) -> None:
        caller = self.ground.callers[organization, name]
        self._ask(one, caller, Attempt(retry_count=retry, idempotency_key=key))

    @rule(one=alive, retry=st.sampled_from([0, 1]), has_key=st.booleans())
    def asks_again(self, one: Expected, retry: int, has_key: bool) -> None:
        for caller in self.ground.callers.values():
            if caller.key_id == one.deleted_by:
                key = one.idempotency_key if has_key else None
                self._ask(one, caller, Attempt(retry_count=retry, idempotency_key=key))

    def _ask(self, one: Expected, caller: Caller, attempt: Attempt) -> None:
        wanted, key = self._answer(one, caller, attempt), attempt.idempotency_key
        self._told(wanted)
        if wanted in {"not_found", "forbidden"}:
            with pytest.raises(Error) as refused:
                self.world.app.executor.delete(
                    caller, ArtifactKind.MODEL, one.made.model.id, attempt
                )
            assert refused.value.kind.value == wanted
            if refused.value.kind is Kind.NOT_FOUND:
                assert refused.value.message == models.missing(one.made.model.id).message
            return
        answer = self.world.app.executor.delete(
            caller, ArtifactKind.MODEL, one.made.model.id, attempt
        )
        assert answer.receipt is not None
        assert not one.receipt or one.receipt == answer.receipt
        one.receipt = answer.receipt
        if wanted == "deleted":
            one.deleted_by, one.idempotency_key = caller.key_id, key
            one.since = self._elapsed()
            self.world.acknowledged[one.made.model.id] = answer.receipt

    def _answer(self, one: Expected, caller: Caller, attempt: Attempt) -> str:
        """Say what the answer must be, from the rules alone (section 6)."""
        if caller.organization_name != one.organization:
            return "not_found"
        if one.deleted_by:
            if caller.key_id != one.deleted_by:
                return "not_found"
            same = attempt.idempotency_key is not None
            same = same and attempt.idempotency_key == one.idempotency_key
            recent = attempt.retry_count >= 1 and self._elapsed() - one.since < REPLAY
            return "replayed" if same or recent else "not_found"
        return "deleted" if caller.role is Role.OWNER else "forbidden"

    @rule(
        one=alive,
        organization=st.sampled_from(ORGANIZATIONS),
        name=st.sampled_from(["ann", "rae"]),
    )
    def uses(self, one: Expected, organization: str, name: str) -> None:
        caller = self.ground.callers[organization, name]
        authorize(caller, Action.USE_MODELS)
        found = models.find(self.world.app.database, caller, one.made.model.id)
        is_there = organization == one.organization and not one.deleted_by
        assert (found is not None) == is_there
        if found is not None:
            assert self.world.plain(found) == one.made.plain
        self._told("used" if is_there else "refused")

    @rule(minutes=st.integers(1, 31))
    def waits(self, minutes: int) -> None:
        self.clock.sleep(minutes * 60)

    @rule()
    def erases_blobs(self) -> None:
        self.world.resume()

    @rule()
    def restarts(self) -> None:
        self.world.restart()
        for one in self.expected:
            assert judge(self.world, one.made) is (
                State.DELETED if one.deleted_by else State.ACTIVE
            )

    @invariant()
    def lists_what_is_there(self) -> None:
        for organization in ORGANIZATIONS:
            caller = self.ground.callers[organization, "ann"]
            listed = {model.id for model in self.world.models(caller)}
            assert listed == {
                one.made.model.id
                for one in self.expected
                if one.organization == organization and not one.deleted_by
            }


def test_every_answer_in_a_models_life_is_the_one_that_the_rules_give(ground: Ground) -> None:
    Life.ground, Life.told = ground, {}
    wanted = {"deleted", "replayed", "forbidden", "not_found", "used", "refused"}
    # Lives are short and at random, so the rarest answer may not come up in the first few.
    seed = budgets.new_seed()
    print(f"seed {seed}")
    for round_number in range(ROUNDS_MAX):
        run_machine(
            hypothesis.seed(seed + round_number)(Life),
            settings=settings(
                max_examples=budgets.count(20, 2_000),
                stateful_step_count=budgets.count(25, 50),
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            ),
        )
        if wanted <= set(Life.told):
            break
    print(f"{sum(Life.told.values())} answers: {Life.told}")
    assert wanted <= set(Life.told)
