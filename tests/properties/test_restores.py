"""Every mix of old and new parts: nothing deleted comes back, nothing else is lost (I10, I11)."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest
from tests.lab import budgets
from tests.lab.history import PARTS, Fate, History, Mix, lived
from tests.lab.judge import judge, require
from tests.lab.power import Power
from tests.lab.restores import is_within_reach, judge_fate, judge_log, start
from tests.lab.world import World, one_dies

from tunewarden.errors import Error, Kind
from tunewarden.recovery_at_start import recovery
from tunewarden.registry.artifacts import State


@pytest.fixture(scope="module")
def history() -> Iterator[History]:
    with lived() as made:
        yield made


def _mixes(history: History) -> list[Mix]:
    """Return the mixes to try: those of the first and last moments, and others by the seed."""
    moments = range(len(history.names))
    everything = [Mix(*moments) for moments in product(moments, repeat=len(PARTS))]
    corners = [Mix(*ends) for ends in product((0, moments[-1]), repeat=len(PARTS))]
    # The blobs decide nothing, so that of the mixes that matter most are seen with new ones.
    seed = budgets.new_seed()
    chosen = random.Random(seed).sample(everything, budgets.count(60, 2500) - len(corners))
    print(f"{len(corners) + len(chosen)} of {len(everything)} mixes, seed {seed}")
    return corners + chosen


def test_no_mix_of_restored_parts_brings_a_model_back_or_loses_one(history: History) -> None:
    outcomes: Counter[str] = Counter()
    for mix in _mixes(history):
        with history.mixed(mix) as world:
            refused = start(world)
            if refused is not None:
                assert refused.kind is Kind.UNAVAILABLE
                assert "Restore" in refused.message, refused.message
                outcomes[f"refused: {refused.code}"] += 1
                continue
            try:
                ends = {judge_fate(world, fate, mix) for fate in history.fates.values()}
                _grow(history, world)
                judge_log(history, world, mix)
            except (AssertionError, Error) as error:
                names = {part: history.names[getattr(mix, part)] for part in PARTS}
                raise AssertionError(f"{mix} {names}: {error}") from error
            outcomes["started"] += 1
            outcomes["started with a model back, undetected"] += "back, undetected" in ends
    print(dict(outcomes))
    # The controls: refusals happen, and the one limit shows (every part that knows is old).
    assert outcomes["refused: log_rolled_back"]
    assert outcomes["refused: keyring_rolled_back"]
    assert outcomes["started with a model back, undetected"]


def _grow(history: History, world: World) -> None:
    """Delete one more model, so that a log that was set back contradicts what it signed."""
    made = next(fate.made for fate in history.fates.values() if fate.asked_at is None)
    world.delete(history.owner, made)
    world.resume()


def test_the_only_old_copy_that_passes_is_one_of_everything_that_knows(history: History) -> None:
    last = len(history.names) - 1
    back = set()
    for ends in product((0, last), repeat=3):
        mix = Mix(ends[0], ends[1], ends[2], blobs=0)
        with history.mixed(mix) as world:
            if start(world) is None and any(
                model.id == fate.made.model.id and fate.asked_at is not None
                for model in world.models(history.owner)
                for fate in history.fates.values()
            ):
                back.add(ends)
    assert back == {(0, 0, 0)}


def test_an_adopted_old_keyring_opens_nothing_that_was_deleted_and_loses_nothing_else(
    history: History,
) -> None:
    last = len(history.names) - 1
    for keyring, database in product(range(last), range(0, last + 1, budgets.count(4, 1))):
        mix = Mix(database=database, keyring=keyring, log=last, blobs=last)
        with history.mixed(mix) as world:
            refused = start(world)
            if refused is None:
                continue
            assert refused.code == "keyring_rolled_back"
            world.open()
            recovery(world.app).adopt_keyring()
            world.restart()
            for fate in history.fates.values():
                _judge_adopted(world, fate, mix)


def test_a_crash_at_any_effect_of_adopting_leaves_a_keyring_that_is_refused_or_adopted(
    history: History,
) -> None:
    last = len(history.names) - 1
    mix = Mix(database=0, keyring=0, log=last, blobs=last)
    was_cut, first, outcomes = True, 0, Counter[str]()
    while was_cut:
        with history.mixed(mix) as world:
            world.power = Power(first)
            with one_dies():
                recovery(world.open().app).adopt_keyring()
            was_cut, first = world.power.dead, first + 1
            try:
                world.restart()
            except Error as refused:
                outcomes[str(refused.code)] += 1
                continue
            outcomes["adopted"] += 1
            for fate in history.fates.values():
                _judge_adopted(world, fate, mix)
    print(f"{first} crashes while adopting: {dict(outcomes)}")
    assert set(outcomes) == {"adopted", "keyring_rolled_back"}


def _judge_adopted(world: World, fate: Fate, mix: Mix) -> None:
    if fate.asked_at is not None:
        assert _judge_fate_after_adoption(world, fate) != State.ACTIVE
        return
    row = world.app.database.peek(
        "SELECT state FROM artifacts WHERE id = :id", id=fate.made.model.id
    )
    if row is None:
        return
    # A model that is newer than the adopted keyring has lost its key: it is deleted, not half there.
    expected = State.DELETED if mix.keyring < fate.made_at else State.ACTIVE
    assert judge(world, fate.made) is expected


def _judge_fate_after_adoption(world: World, fate: Fate) -> State | None:
    within_reach = is_within_reach(world, fate.made)
    require("I3", "an adopted keyring opens a deleted model", not within_reach)
    if world.app.database.peek("SELECT 1 FROM artifacts WHERE id = :id", id=fate.made.model.id):
        return judge(world, fate.made, has_old_blobs=True)
    return None
