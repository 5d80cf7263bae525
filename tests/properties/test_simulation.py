"""Deterministic simulation: a seed decides who goes on next, and replays what went wrong (I1 to I7).

`TUNEWARDEN_SIMULATIONS=n` runs n seeds; `TUNEWARDEN_SEED=s` replays one.
"""

import gc
import logging
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.lab import budgets
from tests.lab.simulation import NeverQueues, Simulation, Worker
from tests.lab.world import Parts, Start, Violated, copied, started

EVENTS = 40


class Impatient(Parts):
    """Waits little for another runner: whoever waits here keeps it from going on."""

    bound_seconds = 0.05
    executor_type = NeverQueues


@pytest.fixture(scope="module")
def stage() -> Iterator[Start]:
    with started(4, Impatient()) as begun:
        yield begun


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Log nothing: pytest would keep each failure's frames, and with them a dead process's files."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _simulate(stage: Start, seed: int, worker_type: type[Worker] = Worker) -> Counter[str]:
    """Run one seed; return what happened. Raises Violated."""
    with copied(stage.world) as world:
        world.time = world.clock = Impatient.clock_type()
        world.open()
        simulation = Simulation(world, stage.owner, stage.made, seed)
        simulation.worker_type = worker_type
        simulation.run(EVENTS)
        machine = simulation.machine
        return Counter(
            begun=machine.begun,
            chunks=machine.chunks,
            deleted=len(world.acknowledged),
            deaths=simulation.deaths,
        )


def _seeds() -> list[int]:
    replayed = budgets.replayed_seed()
    if replayed is not None:
        return [replayed]
    count = int(os.environ.get("TUNEWARDEN_SIMULATIONS") or budgets.count(75, 5_000))
    first = budgets.new_seed()
    return list(range(first, first + count))


@pytest.mark.long
def test_no_order_of_events_breaks_a_promise(stage: Start) -> None:
    seeds, total = _seeds(), Counter[str]()
    for seed in seeds:
        try:
            total += _simulate(stage, seed)
        except Violated as violated:
            raise AssertionError(f"TUNEWARDEN_SEED={seed}: {violated}") from violated
        if seed % 20 == 0:
            gc.collect()  # closes what the dead processes held open
    print(f"{len(seeds)} simulations from seed {seeds[0]}: {dict(total)}")
    assert total["begun"] > len(seeds)
    assert total["deleted"] > len(seeds) // 2 or len(seeds) == 1


def test_a_seed_replays_what_it_did(stage: Start) -> None:
    seed = budgets.new_seed()
    assert _simulate(stage, seed) == _simulate(stage, seed)
