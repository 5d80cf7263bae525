"""Imports that are cut off anywhere: a whole model, or nothing (I6)."""

from collections import Counter
from collections.abc import Iterator

import pytest
from tests.lab.judge import inventory_of, judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import Made, Start, World, copied, one_dies, started

from tunewarden.artifacts import sealing
from tunewarden.errors import Error
from tunewarden.locks import ByteLocks
from tunewarden.registry.artifacts import State


@pytest.fixture(scope="module")
def before() -> Iterator[Start]:
    with started(2) as begun:
        yield begun


def test_a_crash_at_any_effect_of_an_import_leaves_a_whole_model_or_nothing(before: Start) -> None:
    ends: Counter[str] = Counter()
    for first in range(200):
        with copied(before.world, power=Power(first)) as world:
            made: Made | None = None
            with one_dies():
                made = world.open().make(before.owner, "canary-new")
            was_cut = world.power.dead
            world.restart()
            ends[_judge_import(world, before, made)] += 1
        if not was_cut:
            break
    print(f"{first} crashes of an import: {dict(ends)}")
    # Between its making and the note of what it is for, a crash leaves a key that opens nothing.
    assert ends["orphaned key"] <= 8
    assert ends["whole"] >= 2
    assert ends["nothing"] > 20


def _judge_import(world: World, before: Start, made: Made | None) -> str:
    with world.app.database.read() as tx:
        rows = tx.rows("SELECT n, id FROM artifacts ORDER BY n")
    assert len(rows) - len(before.made) in {0, 1}
    is_there = len(rows) > len(before.made)
    assert is_there or made is None, "I6: a model that was answered for is lost"
    if is_there:
        model = world.models(before.owner)[-1]
        assert world.plain(model).keys() == before.made[0].plain.keys()
    orphaned = inventory_of(world).sweep()
    judge_nothing_else(world)
    if orphaned:
        assert orphaned == 1
        assert not is_there
        return "orphaned key"
    return "whole" if is_there else "nothing"


def test_an_import_that_is_refused_because_the_server_starts_leaves_no_key(before: Start) -> None:
    with copied(before.world) as world:
        world.open()
        starting = ByteLocks(world.app.drafts.lock_file)
        assert starting.try_exclusive(0)
        try:
            with pytest.raises(Error, match="The server is starting"):
                world.make(before.owner)
        finally:
            starting.close()
        judge_nothing_else(world)


def test_an_import_whose_store_fails_leaves_nothing(
    before: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError("the disk is full")

    with copied(before.world) as world:
        world.open()
        monkeypatch.setattr(sealing, "seal", fails)
        with pytest.raises(OSError, match="full"):
            world.make(before.owner)
        judge_nothing_else(world)
        assert [judge(world, made) for made in before.made] == [State.ACTIVE] * 2


def test_an_interrupt_just_after_an_import_was_committed_takes_nothing_back(
    before: Start,
) -> None:
    with copied(before.world) as world:
        world.open()
        step, opened = world.power.step, world.power.effects.count("committed")

        def interrupt(what: str) -> None:
            step(what)
            # The second commit of an import is the one that makes the model.
            if what == "committed" and world.power.effects.count("committed") == opened + 2:
                raise KeyboardInterrupt

        world.power.step = interrupt  # type: ignore[method-assign]  # the test's own step
        with pytest.raises(KeyboardInterrupt):
            world.make(before.owner)
        model = world.models(before.owner)[-1]
        assert model.id not in {made.model.id for made in before.made}
        assert world.plain(model)
        judge_nothing_else(world)
