"""A bulk deletion that dies at any effect: each model is readable or deleted, and the same request finishes the rest."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import Parts, Start, World, copied, one_dies, started

from tunewarden.deletion import records
from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions, Wanted
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.steps import Steps
from tunewarden.registry.artifacts import State
from tunewarden.registry.criteria import Criteria

ATTEMPT = Attempt(idempotency_key="once")
# Every third effect: they are many, and each is repeated for both kinds of requests.
EACH = 3


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(5) as begun:
        yield begun


def _delete(world: World, start: Start, wanted: Wanted) -> list[Result | Summary]:
    bulk = BulkDeletions(world.app.database, world.app.executor)
    return [one for group in bulk.delete(start.owner, wanted, ATTEMPT) for one in group]


@pytest.mark.long
@pytest.mark.parametrize("by", ["ids", "filter"])
def test_a_bulk_deletion_that_died_is_finished_by_the_same_request(start: Start, by: str) -> None:
    wanted = Wanted(criteria=Criteria(keep_latest=1))
    if by == "ids":
        wanted = Wanted(tuple(made.model.id for made in start.made[:4]))
    crashes, was_cut = 0, True
    while was_cut:
        with copied(start.world, power=Power(crashes * EACH)) as world:
            with one_dies():
                world.open()
                _delete(world, start, wanted)
            was_cut = world.power.dead
            world.close()
            world.restart()
            for made in start.made:
                judge(world, made)
            *results, summary = _delete(world, start, wanted)
            world.resume()
            states = [judge(world, made) for made in start.made]
            judge_nothing_else(world)
        assert states == [State.DELETED] * 4 + [State.ACTIVE]
        assert isinstance(summary, Summary)
        assert summary.counts == {Outcome.DELETED: 4}
        found = {one.artifact_id for one in results if isinstance(one, Result)}
        assert found == {made.model.id for made in start.made[:4]}
        crashes += 1
    print(f"{crashes} crashes")
    assert crashes > 15


class _Cut(Steps):
    before_d8: ClassVar[bool] = False

    def _finish(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        if self.before_d8:
            raise OSError("a kill at this moment")
        return super()._finish(deletions)


class CutBeforeD8(Parts):
    steps_type = _Cut


def test_a_deletion_that_died_after_its_leaf_has_the_time_of_every_step(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(tuple(made.model.id for made in start.made[:2]))
    with copied(start.world, parts=CutBeforeD8()) as world:
        with monkeypatch.context() as patch:
            patch.setattr(_Cut, "before_d8", True)
            world.open()
            _delete(world, start, wanted)
            world.close()
        world.restart()
        *results, _ = _delete(world, start, wanted)
        for one in results:
            assert isinstance(one, Result)
            assert one.deletion_id is not None
            found = records.find(world.app.database, one.deletion_id)
            assert found is not None
            assert found.is_deleted
            assert found.log_index is not None
            assert set(found.step_micros) >= set(Step) - {Step.ERASE_BLOBS}
