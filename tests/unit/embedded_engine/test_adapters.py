"""Loading and evicting at the level of objects: what is left of an adapter's weights."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.support import demo_models
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunewarden.embedded_engine.adapter_files import read_and_unlink
from tunewarden.embedded_engine.engine import LOADS_AT_ONCE, Engine, Evicted, Served, Settings
from tunewarden.embedded_engine.generation import Generation
from tunewarden.embedded_engine.lora import Current, LoraLinear, Selection
from tunewarden.embedded_engine.requests import Ask, Prompt
from tunewarden.embedded_engine.sampling import Sampling
from tunewarden.errors import Error

ENDLESS = Sampling(temperature=0, logit_bias=((2, -100.0),))


def copy_of_adapter(directory: Path) -> Path:
    return Path(shutil.copytree(demo_models.demo_dir() / "adapter", directory))


def start(
    served: Served, adapter: str | None, prompts: list[Prompt], tokens: int, asked_by: str = ""
) -> Generation:
    ask = Ask(
        model=adapter or "demo",
        messages=None,
        prompts=prompts,
        choices=1,
        sampling=ENDLESS,
        tokens_max=tokens,
        stops=(),
        stream=True,
        include_usage=False,
    )
    generation = Generation(ask, served, adapter, asked_by)
    generation.encode()
    generation.start()
    return generation


async def texts_of(generation: Generation) -> list[str]:
    texts = [""] * len(generation.prompts)
    while not generation.is_finished:
        for delta in await generation.next():
            texts[delta.index] += delta.text
    return texts


def texts_by_peft(prompts: list[Prompt], tokens: int) -> list[str]:
    """Answer with transformers' own loop and peft's own layers, one prompt at a time."""
    base = AutoModelForCausalLM.from_pretrained(
        demo_models.base_dir(), local_files_only=True, dtype=torch.float32
    )
    model = PeftModel.from_pretrained(base, demo_models.demo_dir() / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(demo_models.base_dir(), local_files_only=True)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        said = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            suppress_tokens=[2],
        )
        texts.append(tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


async def answer(tmp_path: Path, prompts: list[Prompt], tokens: int) -> list[str]:
    engine = Engine(Settings())
    try:
        await engine.load_base("demo", demo_models.base_dir())
        await engine.load_adapter("m_1", "demo", copy_of_adapter(tmp_path / "m_1"))
        served = engine.bases["demo"]
        other = start(served, None, ["Hello"], 1000)
        texts = await texts_of(start(served, "m_1", prompts, tokens))
        other.abandon()
        other.close()
        return texts
    finally:
        engine.stop()


async def evict_while_it_runs(tmp_path: Path) -> None:
    engine = Engine(Settings())
    try:
        await engine.load_base("demo", demo_models.base_dir())
        served = engine.bases["demo"]
        for name in ("m_1", "m_2"):
            await engine.load_adapter(name, "demo", copy_of_adapter(tmp_path / name))
        slot = served.slots["m_1"]
        assert served.base.residue(slot) > 0
        victim, other = start(served, "m_1", ["Hello"], 900), start(served, "m_2", ["Hello"], 900)
        await victim.next()
        await other.next()
        done = await engine.evict("m_1")
        assert (done.was_loaded, done.aborted) == (True, 1)
        assert served.base.residue(slot) == 0
        assert served.base.residue(served.slots["m_2"]) > 0
        with pytest.raises(Error) as caught:
            await victim.next()
        assert caught.value.code == "model_deleted"
        assert await other.next()
        other.abandon()
        other.close()
    finally:
        engine.stop()


async def evict_what_made_room(tmp_path: Path) -> None:
    engine = Engine(Settings(adapters_max=1))
    try:
        await engine.load_base("demo", demo_models.base_dir())
        served = engine.bases["demo"]
        await engine.load_adapter("m_1", "demo", copy_of_adapter(tmp_path / "m_1"))
        await engine.load_adapter("m_2", "demo", copy_of_adapter(tmp_path / "m_2"))
        assert list(served.slots) == ["m_2"]
        assert not (await engine.evict("m_1")).was_loaded
        assert (await engine.evict("m_2")).was_loaded
        assert (await engine.evict("m_2")).was_loaded, "a repeated eviction tells the same"
    finally:
        engine.stop()


async def evict_what_cannot_be_overwritten(tmp_path: Path) -> None:
    engine = Engine(Settings(adapters_max=1))
    try:
        await engine.load_base("demo", demo_models.base_dir())
        served = engine.bases["demo"]
        await engine.load_adapter("m_1", "demo", copy_of_adapter(tmp_path / "m_1"))
        erase = served.base.erase
        served.base.erase = lambda slot: None  # type: ignore[method-assign]  # an engine that overwrites nothing, and back
        with pytest.raises(Error, match="failed to overwrite"):
            await engine.load_adapter("m_2", "demo", copy_of_adapter(tmp_path / "m_2"))
        assert not served.slots, "a slot that is not clean serves nobody"
        for _ in range(2):
            assert (await engine.evict("m_1")).residue > 0, "and the next try is made anew"
        served.base.erase = erase  # type: ignore[method-assign]  # an engine that overwrites nothing, and back
        assert await engine.evict("m_1") == Evicted(was_loaded=True, aborted=0, residue=0.0)
        await engine.load_adapter("m_3", "demo", copy_of_adapter(tmp_path / "m_3"))
    finally:
        engine.stop()


async def evict_while_it_loads(tmp_path: Path) -> None:
    engine = Engine(Settings())
    steps = threading.Event()
    try:
        await engine.load_base("demo", demo_models.base_dir())
        path = copy_of_adapter(tmp_path / "m_3")
        # The load gets no further than to the step that would put its weights into a slot.
        engine.bases["demo"].steps.between_steps(steps.wait)
        load = asyncio.ensure_future(engine.load_adapter("m_3", "demo", path))
        async with asyncio.timeout(30):
            while path.exists():  # noqa: ASYNC110  a thread unlinks it
                await asyncio.sleep(0.001)
            eviction = asyncio.ensure_future(engine.evict("m_3"))
            await asyncio.sleep(0)
            steps.set()
            await eviction
        with pytest.raises(Error) as caught:
            await load
        assert caught.value.code == "model_deleted"
        assert not path.exists()
        served = engine.bases["demo"]
        assert not served.slots
        assert all(served.base.residue(slot) == 0 for slot in range(served.slots_max))
    finally:
        steps.set()
        engine.stop()


async def evict_before_it_loads(tmp_path: Path) -> None:
    engine = Engine(Settings())
    others = threading.Event()
    try:
        await engine.load_base("demo", demo_models.base_dir())
        for _ in range(LOADS_AT_ONCE):
            engine._loads.submit(others.wait)
        path = copy_of_adapter(tmp_path / "m_4")
        load = asyncio.ensure_future(engine.load_adapter("m_4", "demo", path))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await engine.evict("m_4")
        with pytest.raises(Error) as caught:
            await load
        assert caught.value.code == "model_deleted"
        assert not path.exists()
    finally:
        others.set()
        engine.stop()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own
@pytest.mark.filterwarnings(
    "ignore:Unexpected keyword arguments:UserWarning"
)  # peft's, of a newer one's file
def test_a_mixed_batch_says_what_peft_says(tmp_path: Path) -> None:
    uneven: list[Prompt] = [[1, 40, 41, 42], [1, *range(300, 340)], [1, *range(260, 960), 44]]
    assert asyncio.run(answer(tmp_path, uneven, 24)) == texts_by_peft(uneven, 24)


def test_the_weights_are_zero_after_an_eviction(tmp_path: Path) -> None:
    asyncio.run(evict_while_it_runs(tmp_path))


def test_a_model_that_made_room_for_another_is_not_loaded(tmp_path: Path) -> None:
    asyncio.run(evict_what_made_room(tmp_path))


def test_weights_that_do_not_read_back_as_zeros_fail_the_eviction(tmp_path: Path) -> None:
    asyncio.run(evict_what_cannot_be_overwritten(tmp_path))


def test_a_load_under_way_is_refused_by_an_eviction(tmp_path: Path) -> None:
    asyncio.run(evict_while_it_loads(tmp_path))


def test_a_load_that_has_not_begun_is_cancelled_by_an_eviction(tmp_path: Path) -> None:
    asyncio.run(evict_before_it_loads(tmp_path))


def test_the_bytes_that_were_read_are_overwritten(tmp_path: Path) -> None:
    path = copy_of_adapter(tmp_path / "a")
    with read_and_unlink(path, rank_max=64) as adapter:
        assert not path.exists()
        tensors = [tensor for pair in adapter.pairs.values() for tensor in (pair.a, pair.b)]
        assert any(bool(tensor.any()) for tensor in tensors)
    assert not any(bool(tensor.any()) for tensor in tensors)


def test_stacks_that_are_outgrown_are_overwritten_and_keep_their_adapters() -> None:
    layer = LoraLinear(torch.nn.Linear(6, 5), Current(), 0)
    a, b = torch.randn(2, 6), torch.randn(5, 2)
    layer.write(1, a, b)
    before = layer.fit(1, 2)
    before_residue = layer.residue(1)
    layer.write(9, torch.randn(4, 6), torch.randn(5, 4))
    assert not any(bool(stack.any()) for stack in before)
    assert layer.residue(1) == pytest.approx(before_residue)
    assert layer.fit(1, 2)[0].shape == (16, 6, 4)


def test_what_a_batch_gathered_is_overwritten() -> None:
    selection = Selection([1, 0])
    a, b = selection.gather(0, torch.ones(2, 3, 1), torch.ones(2, 1, 3))
    selection.erase()
    assert not a.any()
    assert not b.any()
