"""A bulk deletion that dies at any effect: each model is readable or deleted, and the same request finishes the rest."""

from collections.abc import Iterator

import pytest
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import Start, World, copied, one_dies, started

from tunewarden.deletion.bulk.bulk_deletions import BulkDeletions, Wanted
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.requests import Attempt
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
