"""A rule's run that dies at any effect: the next run finishes it, and what is spared stays."""

from collections.abc import Iterator

import pytest
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import Start, World, copied, one_dies, started

from tunewarden import app as composition
from tunewarden.deletion.retention.retention_runs import Retention
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.criteria import Criteria
from tunewarden.registry.holds import Holds
from tunewarden.registry.retention_rules import RetentionRules, Rule, RuleAction, Terms

DAY_SECONDS = 24 * 3600.0
EACH = 3
OLD = 4


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Four old models, the last of them on hold, and a young one."""
    with started(OLD) as begun:
        world = begun.world.open()
        held = begun.made[OLD - 1].model
        holds = Holds(world.app.database, world.app.keyring)
        holds.place(begun.owner, ArtifactKind.MODEL, held.id, "a dispute")
        world.clock.sleep(100 * DAY_SECONDS)
        begun.made.append(world.make(begun.owner, "canary-young"))
        world.close()
        yield begun


def _rule(world: World, start: Start, action: RuleAction) -> Rule:
    terms = Terms(
        criteria=Criteria(older_than_days=90), action=action, notice_days=0, is_enabled=True
    )
    return RetentionRules(world.app.database).create(start.owner, terms)


def _retention(world: World) -> Retention:
    return composition.retention_runner(world.app)


@pytest.mark.long
@pytest.mark.parametrize("action", RuleAction)
def test_a_run_that_died_is_finished_by_the_next(start: Start, action: RuleAction) -> None:
    crashes, was_cut = 0, True
    while was_cut:
        with copied(start.world) as world:
            world.open()
            rule = _rule(world, start, action)
            world.close()
            world.power = Power(crashes * EACH)
            with one_dies():
                world.open()
                list(_retention(world).run(start.owner, rule.id))
            was_cut = world.power.dead
            world.close()
            world.restart()
            for made in start.made:
                judge(world, made)
            *_, summary = _retention(world).run(start.owner, rule.id)
            world.resume()
            states = [judge(world, made) for made in start.made]
            judge_nothing_else(world)
        gone = State.DELETED if action is RuleAction.DELETE else State.ARCHIVED
        assert states == [gone] * (OLD - 1) + [State.ACTIVE] * 2, summary
        crashes += 1
    print(f"{crashes} crashes")
    assert crashes > (12 if action is RuleAction.DELETE else 1)
