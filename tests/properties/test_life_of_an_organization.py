"""Everything that deletes against everything that spares, at random: the right thing is deleted, and nothing else (DESIGN §8)."""

import gc
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine
from tests.lab import budgets
from tests.lab.deleting_of_an_organization import Life
from tests.lab.organization_ground import Ground, Interrupted, new_ground
from tests.lab.organization_mutants import MUTANTS, Mutant
from tests.lab.world import Parts, new_world

from tunewarden.errors import Error


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with new_world(Interrupted()) as world:
        made = new_ground(world)
        world.close()
        gc.collect()
        yield made


def _run(
    ground: Ground,
    runs: int,
    steps: int,
    parts: Parts | None = None,
    phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink),
) -> Counter[str]:
    Life.ground, Life.told, Life.parts = ground, Counter(), parts or Interrupted()
    seed = budgets.new_seed()
    print(f"seed {seed}")
    chosen = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_machine(hypothesis.seed(seed)(Life), settings=chosen)
    return Life.told


@pytest.mark.parametrize("half", ["first", "second"])
def test_the_right_thing_is_deleted_after_any_row_of_acts(ground: Ground, half: str) -> None:
    """In halves, so that two processors can share them."""
    runs, steps = budgets.count(8, 1_000), budgets.count(30, 50)
    told = _run(ground, runs, steps)
    print(f"the {half} {runs} runs of up to {steps} steps: {dict(sorted(told.items()))}")
    assert told["runs"] >= runs
    assert told["deleted"] + told["deleted in bulk"]


@pytest.mark.parametrize(
    "mutant", MUTANTS[: budgets.count(4, len(MUTANTS))], ids=lambda mutant: mutant.__name__
)
def test_control_what_is_wrong_is_caught(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    parts = mutant(monkeypatch.setattr)
    with pytest.raises((AssertionError, Error)):
        _run(ground, budgets.count(300, 1_000), 50, parts, (Phase.generate,))
    print(f"{mutant.__name__} was caught after {Life.told['runs']} runs")
