"""Power cuts under the database's own files: what was committed is there afterwards (I3, I6)."""

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.lab import budgets
from tests.lab.power_cuts import DATABASE, record, verdicts_of
from tests.lab.world import Start, started

MODELS = 12


@pytest.fixture(scope="module")
def begun() -> Iterator[Start]:
    with started(MODELS) as closed:
        yield closed


@pytest.mark.long
def test_no_power_cut_loses_an_acknowledged_commit(begun: Start) -> None:
    recording = record(begun.world, begun.owner, begun.made, "")
    seed, states = budgets.new_seed(), budgets.count(1_500, 100_000)
    verdicts = verdicts_of(recording, states, seed)
    kinds = Counter(op.kind for op in recording.ops)
    checkpoints = sum(op.kind == "sync" and op.name == DATABASE for op in recording.ops)
    print(
        f"{states} power cuts over {dict(kinds)}, {len(recording.acknowledged)} commits,"
        f" {checkpoints} checkpoints, seed {seed}: {dict(verdicts)}"
    )
    assert set(verdicts) == {"sound"}
    assert checkpoints >= 2
    assert len(recording.acknowledged) == 5 * MODELS


def test_the_cuts_would_show_a_database_that_does_not_sync_its_commits(begun: Start) -> None:
    """The control: with synchronous=NORMAL the same deletions lose what was acknowledged."""
    recording = record(begun.world, begun.owner, begun.made, "NORMAL")
    seed, states = budgets.new_seed(), budgets.count(500, 20_000)
    verdicts = verdicts_of(recording, states, seed)
    print(f"{states} power cuts with synchronous=NORMAL, seed {seed}: {dict(verdicts)}")
    lost = sum(number for what, number in verdicts.items() if what.startswith("lost"))
    assert lost > states // 10
    assert verdicts["corrupt"] == 0
