"""What is kept of prompts: whose it is, how much of it, and that nothing is left of it."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import demo_models
from tests.unit.embedded_engine.test_adapters import copy_of_adapter, start, texts_of

from tunewarden.embedded_engine import kv_cache as kv
from tunewarden.embedded_engine.engine import Engine, Served, Settings
from tunewarden.embedded_engine.kv_blocks import BLOCK_TOKENS
from tunewarden.embedded_engine.lora import Selection
from tunewarden.embedded_engine.prefill import Limits
from tunewarden.embedded_engine.prefix_cache import Prefixes
from tunewarden.embedded_engine.requests import Prompt

LONG = [1, *((at * 7) % 900 + 60 for at in range(299))]
LONGER = [*LONG, *range(60, 100)]
BYTES_OF_BLOCK = 2 * 2 * BLOCK_TOKENS * 4 * 4  # two halves of [heads, tokens, size] in float32
OFF = Settings(limits=Limits(prefix_bytes=0))


def contents_of(prefixes: Prefixes, *models: str | None) -> list[torch.Tensor]:
    """Return the memory of these models' blocks."""
    assert prefixes.arena is not None
    return [
        prefixes.arena.blocks[block]
        for (model, _), block in prefixes._blocks.items()
        if model in models
    ]


async def engine_with(settings: Settings, directory: Path) -> Engine:
    """Return an engine with the demo's base and two different adapters."""
    engine = Engine(settings)
    await engine.load_base("demo", demo_models.base_dir())
    await engine.load_adapter("m_1", "demo", copy_of_adapter(directory / "m_1"))
    other = copy_of_adapter(directory / "m_2")
    for path in demo_models.adapter_dir("zebra says").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    await engine.load_adapter("m_2", "demo", other)
    return engine


async def said(served: Served, adapter: str | None, *prompts: Prompt) -> list[str]:
    return await texts_of(start(served, adapter, list(prompts), 24))


async def all_said(settings: Settings, directory: Path) -> tuple[list[list[str]], int]:
    """Ask all models the same long prompts, twice; return the answers and how much was reused."""
    engine = await engine_with(settings, directory)
    try:
        served = engine.bases["demo"]
        answers = []
        for _ in range(2):
            for adapter in ("m_1", "m_2", None):
                answers.append(await said(served, adapter, LONG))
                answers.append(await said(served, adapter, LONGER, LONG[:40], LONG[:200]))
        return answers, served.steps.prefixes.tokens_reused
    finally:
        engine.stop()


def test_answers_are_the_same_with_and_without_reuse(tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    answers, reused = asyncio.run(all_said(Settings(), tmp_path / "with"))
    expected, none = asyncio.run(all_said(OFF, tmp_path / "without"))
    assert answers == expected
    assert none == 0
    assert reused > 3 * len(LONG)
    assert len({tuple(answers[at]) for at in (0, 2, 4)}) == 3  # three models, one prompt


async def reuse_between_models(directory: Path) -> list[int]:
    engine = await engine_with(Settings(), directory)
    try:
        served = engine.bases["demo"]
        reused = []
        for adapter in ("m_1", "m_2", None, "m_1", "m_2", None):
            await said(served, adapter, LONG)
            reused.append(served.steps.prefixes.tokens_reused)
        return reused
    finally:
        engine.stop()


def test_nothing_is_shared_between_models(tmp_path: Path) -> None:
    once = (len(LONG) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    reused = asyncio.run(reuse_between_models(tmp_path))
    assert reused == [0, 0, 0, once, 2 * once, 3 * once]


async def reuse_of_the_base(directory: Path) -> list[int]:
    engine = await engine_with(Settings(), directory)
    try:
        served = engine.bases["demo"]
        reused = []
        for asked_by in ("org_1", "org_2", "org_1"):
            await texts_of(start(served, None, [LONG], 24, asked_by=asked_by))
            reused.append(served.steps.prefixes.tokens_reused)
        return reused
    finally:
        engine.stop()


def test_of_a_base_each_organization_reuses_its_own_prompts_only(tmp_path: Path) -> None:
    once = (len(LONG) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert asyncio.run(reuse_of_the_base(tmp_path)) == [0, 0, once]


async def evict_what_was_kept(directory: Path) -> None:
    engine = await engine_with(Settings(), directory)
    try:
        served = engine.bases["demo"]
        for adapter in ("m_1", "m_2", None):
            await said(served, adapter, LONG)
        prefixes = served.steps.prefixes
        victim = contents_of(prefixes, "m_1")
        others = contents_of(prefixes, "m_2", None)
        assert all(bool(block.any()) for block in (*victim, *others))
        assert len(victim) == len(LONG) // BLOCK_TOKENS
        await engine.evict("m_1")
        assert not any(bool(block.any()) for block in victim)
        assert all(bool(block.any()) for block in others)
        assert contents_of(prefixes, "m_1") == []
        assert prefixes.bytes_held == sum(block.nbytes for block in others)
    finally:
        engine.stop()
    assert len(prefixes) == 0
    assert not any(bool(block.any()) for block in others)


def test_an_eviction_leaves_zeros_where_a_models_prompts_were(tmp_path: Path) -> None:
    asyncio.run(evict_what_was_kept(tmp_path))


def filled(columns: int) -> Any:
    """Return a cache of one layer, two heads of size 4, with something everywhere."""
    cache = kv.new_cache()
    cache.update(torch.rand(1, 2, columns, 4) + 1, torch.rand(1, 2, columns, 4) + 1, 0)
    return cache


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    prefixes = Prefixes(3 * BYTES_OF_BLOCK + 5)
    prompts = [[model, *range(2 * BLOCK_TOKENS)] for model in range(3)]
    for number, prompt in enumerate(prompts):
        prefixes.store(f"m_{number}", prompt, filled(len(prompt)), 0, 0)
        assert prefixes.bytes_held <= prefixes.bytes_max
    assert (len(prefixes), prefixes.blocks_erased) == (3, 3)
    # The beginning of a prompt outlives its end: without it the end could not be used.
    assert [len(prefixes.find(f"m_{at}", prompts[at])) for at in range(3)] == [0, 1, 2]
    prefixes.store("m_3", list(range(9 * BLOCK_TOKENS)), filled(9 * BLOCK_TOKENS), 0, 0)
    assert len(prefixes.find("m_3", list(range(9 * BLOCK_TOKENS)))) == 3
    assert prefixes.bytes_held == 3 * BYTES_OF_BLOCK


def test_what_is_let_go_is_overwritten_and_its_room_is_used_again() -> None:
    prefixes = Prefixes(2 * BYTES_OF_BLOCK)
    prompt = list(range(2 * BLOCK_TOKENS + 1))
    prefixes.store("m_1", prompt, filled(len(prompt)), 0, 0)
    old = contents_of(prefixes, "m_1")
    before = [block.clone() for block in old]
    # One block of another model's: the end of the first prompt makes room.
    prefixes.store("m_2", prompt[:BLOCK_TOKENS], filled(BLOCK_TOKENS), 0, 0)
    assert (len(prefixes), prefixes.blocks_erased) == (2, 1)
    assert not torch.equal(old[1], before[1]) or not torch.equal(old[0], before[0])
    prefixes.clear()
    assert len(old) == 2
    assert not any(bool(block.any()) for block in old)
    assert prefixes.bytes_held == 0


def test_a_prompt_in_scattered_blocks_comes_back_as_it_was() -> None:
    prefixes = Prefixes(6 * BYTES_OF_BLOCK)
    block = list(range(BLOCK_TOKENS))
    for model in ("m_1", "m_2", "m_3", "m_4"):
        prefixes.store(model, block, filled(BLOCK_TOKENS), 0, 0)
    prefixes.forget("m_1")
    prefixes.forget("m_3")  # free: the first, the third, and what was never used
    prompt = list(range(4 * BLOCK_TOKENS))
    cache = filled(len(prompt) + 3)
    prefixes.store("m_5", prompt, cache, 0, 3)
    found = prefixes.find("m_5", [*prompt, 1])
    assert found != sorted(range(found[0], found[0] + 4))
    assert prefixes.arena is not None
    for number, state in enumerate((cache.layers[0].keys, cache.layers[0].values)):
        for tokens in (len(prompt), len(prompt) - 5, 7):
            into = torch.zeros(2, tokens, 4)
            prefixes.arena.read(found, number, into)
            assert torch.equal(into, state[0, :, 3 : 3 + tokens])


def test_rows_that_leave_or_move_leave_zeros_behind() -> None:
    cache, other = kv.new_cache(), filled(5)
    cache.update(torch.rand(3, 2, 4, 4) + 1, torch.rand(3, 2, 4, 4) + 1, 0)
    layer = cache.layers[0]
    before = layer.keys.clone()
    old = [layer.keys, layer.values]
    kv.keep_rows(cache, [2, 0], 1)
    assert torch.equal(layer.keys, before[[2, 0], :, 1:])
    old += [layer.keys, layer.values]
    kv.join(cache, other)
    assert layer.keys.shape == (3, 2, 5, 4)
    assert torch.equal(layer.keys[:2, :, 2:], before[[2, 0], :, 1:])
    old += [layer.keys, layer.values]
    cache.update(torch.rand(3, 2, 200, 4), torch.rand(3, 2, 200, 4), 0)
    assert not any(bool(tensor.any()) for tensor in old)


class Watched:
    """Notes what each forward pass is given: rows and tokens."""

    def __init__(self, served: Served) -> None:
        self.passes: list[tuple[int, int]] = []
        self._forward = served.base.forward

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: object,
        selection: Selection,
        urgent: threading.Event | None,
        *,
        logits_of_all: bool = False,
    ) -> torch.Tensor:
        """Note and pass on."""
        self.passes.append((ids.shape[0], ids.shape[1]))
        return self._forward(ids, mask, cache, selection, urgent, logits_of_all=logits_of_all)


async def join_beside_streams(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    engine = await engine_with(OFF, directory)
    try:
        served = engine.bases["demo"]
        long: Prompt = [1, *((at * 11) % 900 + 60 for at in range(1900))]
        alone = await said(served, "m_1", long)
        streams = [start(served, "m_2", ["Hello", "What is it?"], 900) for _ in range(2)]
        for stream in streams:
            await stream.next()
        watched = Watched(served)
        monkeypatch.setattr(served.base, "forward", watched.forward)
        beside = await said(served, "m_1", long)
        for stream in streams:
            stream.abandon()
            stream.close()
        return alone, beside, watched.passes
    finally:
        engine.stop()


def test_a_long_prompt_does_not_hold_up_the_streams_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, beside, passes = asyncio.run(join_beside_streams(tmp_path, monkeypatch))
    assert beside == alone
    chunks = [at for at, (_, tokens) in enumerate(passes) if tokens > 1]
    limit = Limits().prefill_tokens_beside
    assert sum(passes[at][1] for at in chunks) == 1901
    assert max(rows * tokens for rows, tokens in passes if tokens > 1) == limit
    # Between any two parts of the prompt every stream has its next token.
    assert all(passes[at + 1] == (4, 1) for at in chunks[:-1])
