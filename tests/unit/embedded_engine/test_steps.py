"""What one step does: when it is given up, and what it computes in."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import demo_models
from tests.unit.embedded_engine.test_adapters import copy_of_adapter, start, texts_of
from transformers import AutoModelForCausalLM

from tunewarden.embedded_engine import kv_cache as kv
from tunewarden.embedded_engine.engine import Engine, Served, Settings
from tunewarden.embedded_engine.lora import BASE_SLOT, Selection
from tunewarden.embedded_engine.model import Base, Precision
from tunewarden.embedded_engine.step_loop import INTERRUPTIONS_MAX

PROMPTS: list[Any] = [[1, *range(60, 360)], [1, *range(400, 420)], [1, *range(300, 430)]]


class Watched:
    """Notes which layers compute; `when(calls)` says at which of them something urgent is ordered."""

    def __init__(self, served: Served, when: Any) -> None:
        self.events: list[str] = []
        self.calls = 0
        self._served = served
        self._when = when
        for name, layer in served.base.layers.items():
            layer.base.register_forward_hook(lambda *_, name=name: self._note(name))

    def _note(self, name: str) -> None:
        self.events.append(name)
        self.calls += 1
        if self._when(self.calls):
            self.events.append("ordered")
            done = self._served.steps.between_steps(self._obeyed, is_urgent=True)
            assert not done.done()

    def _obeyed(self) -> None:
        self.events.append("obeyed")


async def interrupted(directory: Path, when: Any) -> tuple[list[str], list[str], Watched]:
    """Answer undisturbed, then interrupted; return both texts of every prompt and what was seen."""
    engine = Engine(Settings())
    try:
        await engine.load_base("demo", demo_models.base_dir())
        await engine.load_adapter("m_1", "demo", copy_of_adapter(directory / "m_1"))
        served = engine.bases["demo"]
        expected = await texts_of(start(served, "m_1", PROMPTS, 12))
        served.steps.between_steps(served.steps.prefixes.clear).result()
        watched = Watched(served, when)
        again = await texts_of(start(served, "m_1", PROMPTS, 12))
        return expected, again, watched
    finally:
        engine.stop()


def test_what_is_urgent_does_not_wait_for_the_step_under_way(tmp_path: Path) -> None:
    # In the first layers of a prompt, in the last ones, and between them and many tokens later.
    moments = {1, 27, 40, 155, 290}
    expected, again, watched = asyncio.run(interrupted(tmp_path, moments.__contains__))
    assert again == expected
    at = [at for at, event in enumerate(watched.events) if event == "ordered"]
    assert len(at) == len(moments)
    # Not one layer more.
    assert all(watched.events[one + 1] == "obeyed" for one in at)


def test_a_storm_of_urgent_orders_does_not_stop_what_runs(tmp_path: Path) -> None:
    expected, again, watched = asyncio.run(interrupted(tmp_path, lambda calls: True))
    assert again == expected
    layers = len(set(watched.events) - {"ordered", "obeyed"})
    calls = watched.calls
    # A step that was given up got one layer far; one that may not be given up computes them all.
    assert calls % (layers + INTERRUPTIONS_MAX) == 0


def test_a_pass_that_is_given_up_leaves_zeros_and_the_cache_as_it_was() -> None:
    cache = kv.new_cache()
    for number in range(2):
        cache.update(torch.rand(2, 2, 5, 4) + 1, torch.rand(2, 2, 5, 4) + 1, number)
    before = [layer.keys.clone() for layer in cache.layers]
    cache.update(torch.rand(2, 2, 3, 4) + 1, torch.rand(2, 2, 3, 4) + 1, 0)  # one layer only
    written = cache.layers[0].keys[:, :, 5:], cache.layers[0].values[:, :, 5:]
    kv.crop(cache, 5)
    assert [layer.keys.shape[2] for layer in cache.layers] == [5, 5]
    assert all(
        torch.equal(layer.keys, old) for layer, old in zip(cache.layers, before, strict=True)
    )
    assert not any(bool(half.any()) for half in written)


def stored_as(directory: Path, dtype: torch.dtype) -> Path:
    """Return the demo's base, stored in a type."""
    shutil.copytree(demo_models.base_dir(), directory)
    model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    model.to(dtype).save_pretrained(directory)
    return directory


def logits_of(base: Base) -> torch.Tensor:
    ids = torch.tensor([[1, *range(60, 80)]])
    return base.forward(ids, torch.ones_like(ids), kv.new_cache(), Selection([BASE_SLOT]))


def type_of(base: Base) -> torch.dtype:
    return next(iter(base.layers.values())).base.weight.dtype


def test_a_base_computes_in_float32_unless_told_otherwise(tmp_path: Path) -> None:
    path = stored_as(tmp_path / "base", torch.bfloat16)
    base = Base(path)
    assert type_of(base) is torch.float32
    half = Base(path, Precision.BFLOAT16)
    assert type_of(half) is torch.bfloat16
    found, expected = logits_of(half), logits_of(base)
    assert found.dtype is torch.float32
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_is_chosen_only_where_base_and_processor_are_made_for_it(
    monkeypatch: pytest.MonkeyPatch, has_instructions: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    expected = torch.bfloat16 if has_instructions else torch.float32
    assert Precision.AUTO.of(torch.bfloat16) is expected
    assert Precision.AUTO.of(torch.float32) is torch.float32
    assert Precision.AUTO.of(None) is torch.float32
