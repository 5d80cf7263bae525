"""Crashes at every effect of a deletion and of its recovery, over the real parts (I3 to I7)."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.lab import budgets
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power, PowerCut
from tests.lab.world import Parts, Start, Violated, World, copied, one_dies, started

from tunewarden.clock import SystemClock
from tunewarden.deletion import records, steps
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import LogMark
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error, Kind
from tunewarden.registry.artifacts import State

PAIRS = 150


class RealTime(Parts):
    """Threads wait for one another in real time."""

    clock_type = SystemClock


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(8) as begun:
        yield begun


def _delete_until(world: World, start: Start) -> None:
    with one_dies():
        world.open()
        world.delete(start.owner, start.made[0])
        world.resume()
    world.close()


def _judge_all(world: World, start: Start) -> State:
    states = [judge(world, made) for made in start.made[:3]]
    assert states[1:] == [State.ACTIVE] * 2, "I14: another model's state changed"
    judge_nothing_else(world)
    asked = world.app.database.peek("SELECT requested_by FROM deletions")
    assert asked in {None, (start.owner.key_id,)}, "I6: it was deleted, and nobody asked for it"
    return states[0]


def _effects(start: Start, first: int) -> int:
    """Return how many effects the recovery has after a crash at `first`; judge where it ends."""
    with copied(start.world, power=Power(first)) as world:
        _delete_until(world, start)
        world.restart()
        effects = len(world.power.effects)
        _judge_all(world, start)
        return effects


@pytest.mark.long
def test_a_crash_at_any_effect_leaves_a_model_readable_or_deleted_and_so_does_any_pair(
    start: Start,
) -> None:
    with copied(start.world) as world:
        _delete_until(world, start)
        total = len(world.power.effects)
    pairs = [(i, j) for i in range(total + 1) for j in range(_effects(start, i))]
    seed = budgets.new_seed()
    chosen = budgets.sampled(pairs, PAIRS, seed)
    ends: Counter[State] = Counter()
    for first, second in chosen:
        with copied(start.world, power=Power(first)) as world:
            _delete_until(world, start)
            with one_dies():
                world.restart(power=Power(second))
            world.restart()
            try:
                ends[_judge_all(world, start)] += 1
            except Violated as violated:
                raise AssertionError(
                    f"crash at {first}, then at {second}: {violated}"
                ) from violated
    print(f"{total + 1} crashes; {len(chosen)} of {len(pairs)} pairs, seed {seed}: {dict(ends)}")
    assert set(ends) == {State.ACTIVE, State.DELETED}


def test_an_answered_deletion_stays_with_its_receipt_after_any_crash(start: Start) -> None:
    kept = 0
    for first in range(200):
        with copied(start.world) as world:
            world.open()
            world.delete(start.owner, start.made[0])
            world.power.cut_at = len(world.power.effects) + first
            with one_dies():
                world.resume()
            was_cut = world.power.dead
            world.restart()
            assert _judge_all(world, start) is State.DELETED
            kept += 1
        if not was_cut:
            break
    assert kept > 20


def test_another_runner_adopts_a_deletion_wherever_the_first_one_died(start: Start) -> None:
    for first in range(200):
        with copied(start.world, power=Power(first)) as world:
            _delete_until(world, start)
            was_cut = world.power.dead
            # No recovery: the server runs on, and another of its processes takes over.
            world.power = Power()
            world.open().resume()
            _judge_all(world, start)
        if not was_cut:
            break
    assert first > 50


def test_an_upgrade_in_the_middle_of_a_deletion_makes_no_second_leaf(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, was_cut = 0, True
    while was_cut:
        with copied(start.world, power=Power(first)) as world, monkeypatch.context() as upgrade:
            _delete_until(world, start)
            was_cut, first = world.power.dead, first + 1
            upgrade.setattr(steps, "__version__", "99.0")
            upgrade.setattr(steps, "RESIDUALS", ("something that nobody knew of before",))
            world.power = Power()
            world.open().resume()
            _judge_all(world, start)


class Twice(Steps):
    """Does every step again that is not noted, as after a crash in between."""

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        super().do(step, deletions)
        noted = [found for one in deletions if (found := records.find(self.database, one.id))]
        done = all(step.is_done_in(one.stage) for one in noted)
        return noted if done else super().do(step, deletions)


class DoesTwice(Parts):
    steps_type = Twice


def test_every_step_may_be_repeated(start: Start) -> None:
    with copied(start.world, parts=DoesTwice()) as world:
        _delete_until(world, start)
        world.restart()
        assert _judge_all(world, start) is State.DELETED


def test_a_deletion_that_an_engine_refuses_goes_on_when_it_answers(start: Start) -> None:
    with copied(start.world) as world:
        world.open()
        world.engine.failures = 2
        with pytest.raises(Error, match="is committed and continues") as refused:
            world.delete(start.owner, start.made[0])
        assert refused.value.kind is Kind.UNAVAILABLE
        assert world.app.executor.resume() == 1
        world.resume()
        assert _judge_all(world, start) is State.DELETED


def _at_once(work: list[Callable[[], None]]) -> None:
    failures: list[BaseException] = []
    gate = threading.Barrier(len(work))

    def run(one: Callable[[], None]) -> None:
        try:
            gate.wait()
            one()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("shares_parts", [True, False], ids=["one process", "eight processes"])
def test_deletions_of_different_models_at_once_all_succeed(
    start: Start, shares_parts: bool
) -> None:
    for _ in range(budgets.count(3, 50)):
        with copied(start.world, parts=RealTime()) as world:
            world.open()
            others = [
                world if shares_parts else World(world.root, world.parts, Power()).open()
                for _ in start.made
            ]
            _at_once(
                [
                    lambda one=one, made=made: one.delete(start.owner, made)  # type: ignore[misc]  # mypy infers no lambda with a default
                    for one, made in zip(others, start.made, strict=True)
                ]
            )
            for one in others:
                world.acknowledged |= one.acknowledged
            world.restart()
            assert {judge(world, made) for made in start.made} == {State.DELETED}
            assert world.app.log_mark.read() == world.log().size() == 2 * len(start.made)


@pytest.mark.parametrize("attempt", [Attempt(), Attempt(retry_count=1)], ids=["fresh", "retried"])
def test_two_deletions_of_one_model_at_once_have_one_effect(start: Start, attempt: Attempt) -> None:
    answers: Counter[str] = Counter()
    for _ in range(budgets.count(10, 200)):
        with copied(start.world, parts=RealTime()) as world:
            world.open()
            worlds = [world, World(world.root, world.parts, Power()).open()]

            def ask(one: World) -> None:
                try:
                    one.delete(start.owner, start.made[0], attempt)
                    answers["deleted"] += 1
                except Error as refused:
                    answers[refused.kind.value] += 1

            _at_once([lambda one=one: ask(one) for one in worlds])  # type: ignore[misc]  # mypy infers no lambda with a default
            receipts = {one.acknowledged.get(start.made[0].model.id) for one in worlds} - {None}
            assert len(receipts) == 1, "I5: two receipts were handed out"
            world.restart()
            assert judge(world, start.made[0]) is State.DELETED
    if attempt.retry_count:
        assert set(answers) == {"deleted"}
    else:
        assert answers["deleted"] == answers["not_found"]


def test_threads_that_raise_the_mark_at_once_leave_the_greatest(tmp_path: Path) -> None:
    path = tmp_path / "log.mark"
    for base in range(0, budgets.count(400, 4_000), 8):
        sizes = range(base + 1, base + 9)
        _at_once([lambda size=size: LogMark(path).raise_to(size) for size in sizes])  # type: ignore[misc]  # mypy infers no lambda with a default
        assert LogMark(path).read() == base + 8


def test_a_mark_that_was_made_and_not_yet_written_is_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "log.mark"
    path.touch()
    assert LogMark(path).read() == 0
    LogMark(path).raise_to(3)
    assert LogMark(path).read() == 3
    path.write_bytes(b"three")
    with pytest.raises(Error, match="damaged"):
        LogMark(path).read()


def test_two_runners_at_once_do_each_deletion_once(start: Start) -> None:
    for first in range(0, 30, budgets.count(5, 1)):
        with copied(start.world, parts=RealTime(), power=Power(8 + first)) as world:
            _delete_until(world, start)
            runners = [World(world.root, world.parts, Power()).open() for _ in range(3)]
            _at_once([lambda one=one: _resume_all(one) for one in runners])  # type: ignore[misc]  # mypy infers no lambda with a default
            world.restart()
            assert judge(world, start.made[0]) is State.DELETED


def _resume_all(world: World) -> None:
    while world.app.executor.resume():
        world.clock.sleep(0.001)


def test_the_power_goes_where_it_is_told_to(start: Start) -> None:
    """The control: an effect that is cut is not there, and the judge sees what is half done."""
    with copied(start.world, power=Power(6 + 2)) as world:
        _delete_until(world, start)
        world.power = Power()
        world.open()
        with pytest.raises(Violated, match="left deleting"):
            judge(world, start.made[0])
        with pytest.raises(PowerCut):
            Power(0).step("anything")
