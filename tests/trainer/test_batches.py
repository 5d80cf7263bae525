"""Pieces and their losses: every example once a pass, and the same numbers however it is divided."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import demo_models
from tests.trainer import data

from tunewarden.trainer import adapters, base
from tunewarden.trainer.batches import Cutter, Order
from tunewarden.trainer.chats import Chats
from tunewarden.trainer.examples import Example
from tunewarden.trainer.losses import Outcome, Preference, Reader, Supervised, ask_reference

CPU = torch.device("cpu")
READER = Reader(picks=True, autocast=False)


@pytest.fixture(scope="module")
def chats() -> Chats:
    return Chats(base.load_tokenizer(demo_models.base_dir()))


@pytest.fixture(scope="module")
def examples(chats: Chats) -> list[Example]:
    return [tuple(chats.rows(example["messages"])) for example in data.chats(6)]


@pytest.fixture(scope="module")
def pairs(chats: Chats) -> list[Example]:
    return [
        tuple(
            chats.rows([*pair["input"]["messages"], *pair[side]])[0]
            for side in ("preferred_output", "non_preferred_output")
        )
        for pair in data.preferences(3, "Ahoy!", "Good day!")
    ]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    path = demo_models.base_dir()
    machine = base.machine_for(path)
    found, _ = base.load_model(path, base.load_config(path), machine)
    assert (machine.dtype, machine.is_packed) == (torch.float32, False)
    model = adapters.new_adapter(found, rank=4, seed=1)
    with torch.no_grad():  # so that gradients reach both matrices
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


def gradient(model: Any, outcomes: list[Outcome]) -> torch.Tensor:
    """The gradient of the sum, as one vector."""
    model.zero_grad()
    torch.autograd.backward([outcome.loss for outcome in outcomes])
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


@given(
    lengths=st.lists(st.integers(2, 99), min_size=1, max_size=300),
    size=st.integers(1, 40),
    seed=st.integers(0, 2**62),
)
@settings(max_examples=60)
def test_a_pass_draws_each_example_once_and_again_the_same(
    lengths: list[int], size: int, seed: int
) -> None:
    orders = [drawn(lengths, size, seed, epoch) for epoch in (0, 0, 1)]
    assert orders[0] == orders[1]
    for order in orders:
        assert sorted(number for batch in order for number in batch) == list(range(len(lengths)))
        assert len(order) == len(Order(lengths, size, seed, lambda: 0))
        assert all(0 < len(batch) <= size for batch in order)


def drawn(lengths: list[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """What one epoch draws."""
    return list(Order(lengths, size, seed, lambda: epoch))


def test_epochs_differ_and_like_lengths_come_together() -> None:
    lengths = [number % 50 + 2 for number in range(400)]
    first, second = (drawn(lengths, 8, 1, epoch) for epoch in (0, 1))
    assert first != second
    padding = sum(max(lengths[n] for n in b) * len(b) - sum(lengths[n] for n in b) for b in first)
    assert padding < 0.15 * sum(lengths)


@pytest.mark.parametrize("tokens_max", [1, 150, 10_000])
@pytest.mark.parametrize("is_packed", [False, True])
def test_however_a_step_is_divided_loss_and_gradient_are_the_same(
    model: Any, examples: list[Example], tokens_max: int, is_packed: bool
) -> None:
    objective = Supervised(READER)
    whole = [objective(model, piece) for piece in whole_cut(examples).all_pieces()]
    expected = gradient(model, whole)
    cutter = Cutter(examples, tokens_max=tokens_max, is_packed=is_packed)
    pieces = cutter.all_pieces()
    assert sorted(int(n) for piece in pieces for n in piece.members) == list(range(len(examples)))
    assert sum(piece.tokens for piece in pieces) == sum(len(r.ids) for e in examples for r in e)
    assert len(pieces) == {1: len(examples), 10_000: 1}.get(tokens_max, len(pieces))
    outcomes = [objective(model, piece) for piece in pieces]
    assert sum(one.count for one in outcomes) == objective.count(pieces) == whole[0].count
    assert sum(int(one.right) for one in outcomes) == int(whole[0].right)
    torch.testing.assert_close(gradient(model, outcomes), expected, rtol=1e-3, atol=1e-4)


def whole_cut(examples: list[Example]) -> Cutter:
    """A cutter that makes one padded piece."""
    return Cutter(examples, tokens_max=100_000, is_packed=False)


def test_the_loss_is_the_one_that_transformers_computes(
    model: Any, examples: list[Example]
) -> None:
    (piece,) = whole_cut(examples).all_pieces()
    labels = torch.full_like(piece.ids, -100)
    order = [int(number) for number in piece.members]
    for at, number in enumerate(order):
        (row,) = examples[number]
        for start, end in row.spans:
            labels[at, start:end] = piece.ids[at, start:end]
    with torch.no_grad():
        expected = model(input_ids=piece.ids, labels=labels).loss
        outcome = Supervised(READER)(model, piece)
        plain = Supervised(Reader(picks=False, autocast=False))(model, piece)
    torch.testing.assert_close(outcome.loss / outcome.count, expected)
    torch.testing.assert_close(plain.loss, outcome.loss)


def test_less_memory_gives_the_same_gradient(model: Any, examples: list[Example]) -> None:
    (piece,) = whole_cut(examples).all_pieces()
    objective = Supervised(READER)
    expected = gradient(model, [objective(model, piece)])
    model.train()
    base.save_memory(model.get_base_model())
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    try:
        torch.testing.assert_close(gradient(model, [objective(model, piece)]), expected)
    finally:
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False
        model.eval()


def test_bf16_is_near(model: Any, examples: list[Example]) -> None:
    (piece,) = whole_cut(examples).all_pieces()
    with torch.no_grad():
        exact = Supervised(READER)(model, piece)
        near = Supervised(Reader(picks=True, autocast=True))(model, piece)
    assert near.loss.dtype is torch.float32
    torch.testing.assert_close(near.loss, exact.loss, rtol=0.02, atol=0)


@pytest.mark.parametrize("is_packed", [False, True])
def test_preferences_are_measured_from_the_reference(
    model: Any, pairs: list[Example], is_packed: bool
) -> None:
    cutter = Cutter(pairs, tokens_max=300, is_packed=is_packed)
    ask_reference(READER, model, cutter, CPU)
    objective = Preference(READER, 0.1)
    with torch.no_grad():
        outcomes = [objective(model, piece) for piece in cutter.all_pieces()]
        (whole,) = whole_cut(pairs).all_pieces()
        sums = [
            sum(
                float(model(input_ids=row_ids).logits[0, at - 1].log_softmax(-1)[row.ids[at]])
                for start, end in row.spans
                for at in range(start, end)
            )
            for row in pairs[0]
            for row_ids in [torch.tensor([list(row.ids)])]
        ]
    assert cutter.references is not None
    assert float(cutter.references[0]) == pytest.approx(sums[0] - sums[1], abs=1e-3)
    loss = sum(float(one.loss) for one in outcomes) / len(pairs)
    assert loss == pytest.approx(0.693147, abs=1e-4)  # log 2: no margin yet
    worse = dataclasses.replace(whole, references=cutter.references[whole.members] - 1)
    with torch.no_grad():
        assert int(objective(model, worse).right) == len(pairs)
