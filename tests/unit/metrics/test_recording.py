"""Where an observation of a histogram falls, and the parts of an inference request's block."""

import pytest

from tunewarden.metrics import families, recording
from tunewarden.metrics.memory import Memory, Slot

CHAT = ("/v1/chat/completions", "base", 200, "")


def _block(slot: Slot) -> list[int]:
    at = recording.Inference(slot).ended(CHAT, 0.0, (0, 0))
    return slot.integers[at : at + recording._SIZE].tolist()


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.01, 0), (0.0100001, 1), (81.92, 13), (1e6, 14)]
)
def test_an_observation_is_in_the_first_bucket_whose_bound_is_not_less(
    seconds: float, bucket: int
) -> None:
    slot = Slot.private()
    recording.Inference(slot).ended(CHAT, seconds, (0, 0))
    block = _block(slot)
    block[0] -= 1  # by looking
    duration = recording.inference_parts(block)[0]
    assert [i for i, count in enumerate(duration[:-1]) if count] == [bucket]
    assert duration[-1] == int(seconds * recording.MICROS)


def test_a_stream_is_counted_by_its_first_event_and_by_its_further_tokens() -> None:
    slot = Slot.private()
    counts = recording.Inference(slot)
    at = counts.ended(CHAT, 1.0, (5, 11))
    counts.streamed(at, 1.0, 0.5, 11)
    one = counts.ended(CHAT, 1.0, (1, 1))
    counts.streamed(one, 1.0, 0.5, 1)
    duration, first, each, tokens = recording.inference_parts(
        slot.integers[at : at + recording._SIZE].tolist()
    )
    assert one == at
    assert (sum(duration[:-1]), duration[-1]) == (2, 2 * recording.MICROS)
    assert (sum(first[:-1]), first[-1]) == (2, recording.MICROS)
    assert (sum(each[:-1]), each[-1]) == (1, recording.MICROS // 20), (
        "one token has no time of its own"
    )
    assert tokens == (6, 12)


def test_the_parts_of_a_block_are_as_long_as_their_metrics_need() -> None:
    parts = recording.inference_parts(list(range(recording._SIZE)))
    for family, part in zip(
        (families.DURATION, families.FIRST_TOKEN, families.OUTPUT_TOKEN), parts, strict=False
    ):
        assert len(part) == len(family.bounds) + 2


def test_a_process_counts_in_the_slot_that_it_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording._Process, "slot", None)
    recording.count(families.DELETIONS, "model")
    memory = Memory.create(2)
    memory.slot(1).set((families.IN_FLIGHT.name,), 3)
    recording.join(memory.descriptor, 1)
    recording.count(families.DELETIONS, "model")
    recording.observe(families.STEP, 0.003, "fence")
    found = memory.totals()
    assert found[families.DELETIONS.name, "model"] == [1], "not what was counted before"
    assert found[families.IN_FLIGHT.name,] == [0], "it has none yet"
    assert found[families.STEP.name, "fence"][2] == 1


def test_a_step_that_fails_is_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory.create(1)
    monkeypatch.setattr(recording._Process, "slot", memory.slot(0))
    with pytest.raises(OSError, match="full"), recording.timed(families.STEP, "log"):
        raise OSError("full")
    assert memory.totals() == {}
