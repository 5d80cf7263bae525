"""Several deletions that one runner ends at once: each by itself, whoever dies and whatever fails (I3 to I6)."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar

import pytest
from tests.lab import budgets
from tests.lab.judge import judge, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import SHARD_CAPACITY, Made, Parts, Start, World, copied, one_dies, started
from tests.support import servers

from tunewarden import locks
from tunewarden.clock import SystemClock
from tunewarden.deletion import group_requests, unfinished
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt, RequestedDeletion
from tunewarden.deletion.steps import Steps
from tunewarden.errors import Error
from tunewarden.registry.artifacts import ArtifactKind, State

COUNT = 4


class RealTime(Parts):
    """Threads and processes wait for one another in real time."""

    clock_type = SystemClock


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    with started(8) as begun:
        yield begun


def queue(world: World) -> Path:
    return world.config.run / "deletions.locks"


def waiting(world: World) -> int:
    return len(unfinished.evicted(world.app.database, limit=100))


@contextmanager
def _held_back(world: World, deletes: Sequence[Callable[[], object]]) -> Iterator[None]:
    """Let deletions come as far as the queue; they go on when the block ends, and have ended after it."""
    threads = [threading.Thread(target=one) for one in deletes]
    with locks.exclusive(queue(world)):
        for thread in threads:
            thread.start()
        servers.wait_until(lambda: waiting(world) == len(threads), "all have noted", 20)
        yield
    for thread in threads:
        thread.join()


class _Counting(Steps):
    noted: ClassVar[list[int]] = []

    def note(self, *deletions: Deletion) -> None:
        self.noted.append(len(deletions))
        super().note(*deletions)


class CountsNotes(RealTime):
    steps_type = _Counting


def _committed(world: World, start: Start) -> list[Deletion]:
    """Commit the deletion of all models in one transaction, as a bulk deletion does."""
    wanted = [(ArtifactKind.MODEL, made.model.id) for made in start.made]
    asked = world.app.executor.commit(
        lambda size: group_requests.request_together(
            world.app.database, start.owner, wanted, Attempt(), log_size=size
        )
    )
    return [one.deletion for one in asked if isinstance(one, RequestedDeletion)]


@pytest.mark.parametrize("another_leads", [False, True])
def test_many_of_one_request_share_every_step_and_are_stored_in_between_only_for_another_leader(
    start: Start, *, another_leads: bool
) -> None:
    with copied(start.world, parts=CountsNotes()) as world:
        app = world.open().app
        before = app.keyring.generations()
        deletions = _committed(world, start)
        _Counting.noted.clear()
        done: list[Deletion] = []

        def finish() -> None:
            done.extend(app.executor.finish_together(deletions))

        if another_leads:
            with locks.exclusive(queue(world)):
                thread = threading.Thread(target=finish)
                thread.start()
                servers.wait_until(lambda: waiting(world) == len(deletions), "all are stored", 20)
            thread.join()
        else:
            finish()
        assert [one.is_deleted for one in done] == [True] * len(start.made)
        assert _Counting.noted == ([len(deletions)] if another_leads else [])
        after = app.keyring.generations()
        assert after == {shard: generation + 1 for shard, generation in before.items()}
        assert [one.log_index for one in done] == list(range(len(done)))
        world.resume()
        assert [judge(world, made) for made in start.made] == [State.DELETED] * len(start.made)


def test_those_that_wait_are_ended_at_once_whatever_process_they_wait_in(start: Start) -> None:
    with copied(start.world, parts=RealTime()) as world:
        world.open()
        others = [World(world.root, world.parts, Power()).open() for _ in start.made]
        before = world.app.keyring.generations()
        deletes = [
            lambda one=one, made=made: one.delete(start.owner, made)
            for one, made in zip(others, start.made, strict=True)
        ]
        with _held_back(world, deletes):
            pass
        # One rewrite a shard for all of them.
        assert len(start.made) > SHARD_CAPACITY
        after = world.app.keyring.generations()
        assert after == {shard: generation + 1 for shard, generation in before.items()}
        # One checkpoint: each receipt is proven in the tree that has all their leaves.
        receipts = {receipt for one in others for receipt in one.acknowledged.values()}
        assert len(receipts) == len(start.made)
        assert all(b"\\n%d\\n" % len(start.made) in receipt for receipt in receipts)
        for one in others:
            world.acknowledged |= one.acknowledged
        world.restart()
        assert {judge(world, made) for made in start.made} == {State.DELETED}
        judge_nothing_else(world)


class _Fails(Steps):
    """Cannot do one step of one deletion, so of none with which it is done."""

    step = Step.ERASE_KEY
    victim = 0

    def do(self, step: Step, deletions: Sequence[Deletion]) -> list[Deletion]:
        if step is _Fails.step and _Fails.victim in {one.artifact_n for one in deletions}:
            raise RuntimeError("this one cannot be done")
        return super().do(step, deletions)


class Failing(RealTime):
    steps_type = _Fails


@pytest.mark.parametrize("step", [Step.ERASE_KEY, Step.LOG, Step.FINISH, Step.ERASE_BLOBS])
def test_a_deletion_that_cannot_go_on_does_not_stop_those_beside_it(
    start: Start, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, *healthy = start.made[:COUNT]
    monkeypatch.setattr(_Fails, "step", step)
    monkeypatch.setattr(_Fails, "victim", victim.model.n)
    with copied(start.world, parts=Failing()) as world:
        world.open()
        refused: list[Error] = []

        def ask(made: Made) -> None:
            try:
                world.delete(start.owner, made)
            except Error as error:
                refused.append(error)

        deletes = [lambda made=made: ask(made) for made in start.made[:COUNT]]
        with _held_back(world, deletes):
            pass
        assert [error.code for error in refused] == ["deletion_in_progress"] * (
            step is not Step.ERASE_BLOBS
        )
        assert world.app.executor.resume() == 1
        assert {judge(world, made) for made in healthy} == {State.DELETED}
        monkeypatch.setattr(_Fails, "victim", 0)
        assert world.app.executor.resume() == 0
        assert judge(world, victim) is State.DELETED


def _noted(start: Start, world: World) -> None:
    """Bring some deletions as far as the queue, where all who brought them gave up."""
    world.open()
    with locks.exclusive(queue(world)):
        for made in start.made[:COUNT]:
            one = World(world.root, Impatient(), Power()).open()
            with pytest.raises(Error, match="is committed and continues"):
                one.delete(start.owner, made)
    assert waiting(world) == COUNT


class Impatient(Parts):
    bound_seconds = 0.01


def test_wherever_the_one_dies_that_ends_several_another_ends_each_once(start: Start) -> None:
    with copied(start.world) as prepared:
        _noted(start, prepared)
        prepared.close()
        gc.collect()
        cuts, was_cut = 0, True
        chosen = range(0, 10**6, budgets.count(2, 1))
        for first in chosen:
            with copied(prepared, power=Power(first)) as world:
                with one_dies():
                    world.open().resume()
                was_cut = world.power.dead
                cuts += was_cut
                # The server runs on, and another of its processes takes over.
                world.close()
                world.power = Power()
                world.open().resume()
                assert {judge(world, made) for made in start.made[:COUNT]} == {State.DELETED}
                assert judge(world, start.made[COUNT]) is State.ACTIVE
                judge_nothing_else(world)
            if not was_cut:
                break
        print(f"{cuts} deaths")
        assert cuts > 20


def test_a_killed_process_takes_none_of_the_deletions_with_it_that_wait_behind_it(
    start: Start,
) -> None:
    context = get_context("fork")
    ended, whole_seconds = 0, 0.0
    for number in range(1 + budgets.count(12, 300)):
        with copied(start.world, parts=RealTime()) as world:
            world.open()
            log_size = world.log().size()
            world.close()
            gc.collect()

            def life(world: World = world) -> None:
                process = World(world.root, RealTime(), Power()).open()
                deletes = [
                    threading.Thread(target=process.delete, args=(start.owner, made))
                    for made in start.made[:COUNT]
                ]
                for thread in deletes:
                    thread.start()
                for thread in deletes:
                    thread.join()

            child = context.Process(target=life)
            began = time.monotonic()
            child.start()
            assert child.pid is not None
            if number == 0:  # It is not killed: it tells how long a life takes on this machine.
                child.join()
                whole_seconds = time.monotonic() - began
            else:
                time.sleep(whole_seconds * (number % 12) / 8)
                os.kill(child.pid, signal.SIGKILL)
                child.join()
            world.restart()
            states = [judge(world, made) for made in start.made[:COUNT]]
            assert set(states) <= {State.ACTIVE, State.DELETED}
            ended += states.count(State.DELETED) if number else 0
            assert world.log().size() == log_size + 2 * states.count(State.DELETED)
    assert ended > 0
