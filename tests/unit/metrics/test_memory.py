"""The memory that processes count in: exact over processes, threads and deaths."""

import os
import signal
import threading

import pytest

from tunewarden.metrics.memory import INTEGER_BYTES, SLOT_INTEGERS, Memory, Slot

KEY = ("requests", "GET", "/v1/models")


@pytest.fixture
def memory() -> Memory:
    return Memory.create(3)


def test_counts_of_all_slots_are_summed(memory: Memory) -> None:
    memory.slot(0).add(KEY, 2)
    memory.slot(2).add(KEY, 3)
    memory.slot(1).add(("other", "ü\n"))
    assert memory.totals() == {KEY: [5], ("other", "ü\n"): [1]}


def test_a_successor_continues_where_its_predecessor_stopped(memory: Memory) -> None:
    memory.slot(0).add(KEY)
    successor = memory.slot(0)
    successor.add(KEY)
    successor.add(("new",))
    assert memory.totals() == {KEY: [2], ("new",): [1]}


def test_what_was_in_use_is_not_in_use_after_a_death(memory: Memory) -> None:
    memory.slot(0).set(("in_flight",), 7)
    memory.slot(0).add(KEY)
    memory.slot(0).reset(frozenset({"in_flight"}))
    assert memory.totals() == {KEY: [1], ("in_flight",): [0]}


def test_a_process_that_is_killed_while_it_counts_loses_nothing(memory: Memory) -> None:
    """Its counts are where it wrote them, and what it was appending is there whole or not at all."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        slot = memory.slot(0)
        for number in range(1_000_000):
            slot.add(KEY)
            slot.add(("key", str(number % 1000)))
            if number == 100:
                os.write(writes, b".")
        os._exit(0)
    assert os.read(reads, 1) == b"."
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reads)
    os.close(writes)
    found = memory.totals()
    assert found[KEY][0] > 100
    others = sum(count for key, [count] in found.items() if key[0] == "key")
    assert found[KEY][0] - others in {0, 1}
    memory.slot(0).add(KEY)
    assert memory.totals()[KEY] == [found[KEY][0] + 1]


def test_threads_lose_no_count() -> None:
    slot = Slot.private()

    def count() -> None:
        for _ in range(5000):
            slot.add(KEY)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slot.integers[slot.block(KEY, 1)] == 20_000


def test_a_full_slot_counts_what_it_knows_and_harms_no_other(memory: Memory) -> None:
    slot = memory.slot(1)
    slot.add(KEY)
    size = 100
    for number in range(SLOT_INTEGERS // size):
        slot.integers[slot.block(("many", str(number)), size) + size - 1] = 1
    slot.add(KEY)
    found = memory.totals()
    assert found.pop(KEY) == [2]
    assert 0 < len(found) < SLOT_INTEGERS // size
    assert all(sum(values) == 1 for values in found.values()), "what has no room is nowhere"
    assert memory.slot(2).integers.tolist() == [0] * SLOT_INTEGERS


def test_a_block_is_a_row_of_integers_that_begin_at_zero(memory: Memory) -> None:
    slot = memory.slot(0)
    at = slot.block(KEY, 3)
    slot.integers[at + 2] = -(2**63)
    assert slot.block(KEY, 3) == at
    assert memory.totals() == {KEY: [0, 0, -(2**63)]}
    assert slot.integers.nbytes == SLOT_INTEGERS * INTEGER_BYTES
