"""What an adapter in vLLM goes through: loaded, used, evicted; and nothing of it leaves afterwards."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.fakes.vllm import BASE, FakeVllm, Sequence
from tests.unit.vllm_plugin.asgi import WEIGHTS, left_in, started

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.messages import (
    VERSION,
    AbortAnswer,
    EvictedAdapter,
    State,
    decoded,
)
from tunewarden_vllm.refusals import Refused


def test_an_adapter_is_pushed_used_and_evicted(scratch: Path) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            assert list(vllm.files.values()) == [WEIGHTS]
            chat = await client.running("m_1")
            client.say("one")
            await chat.has(b"data: one\n\n")
            client.say("END")
            await chat.whole()
            assert chat.body.endswith(b"data: [DONE]\n\n")
            assert chat.is_complete
            assert await client.evict("m_1") == [EvictedAdapter("m_1", True, 0, 0.0)]
            assert (vllm.files, vllm.lora_requests) == ({}, {})
            assert (await client.chat("m_1").whole()).code == Code.ADAPTER_NOT_LOADED
            assert (await client.push("m_1").whole()).code == Code.MODEL_DELETED

    asyncio.run(run())
    assert list(scratch.iterdir()) == []


def test_nothing_of_an_evicted_adapter_leaves_and_others_go_on() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1", "m_2")
            streams = [await client.running("m_1") for _ in range(3)]
            whole = await client.running("m_1", stream=False)
            others = [await client.running("m_2"), await client.running(BASE)]
            client.say("early")
            for stream in (*streams, *others):
                await stream.has(b"early")
            [evicted] = await client.evict("m_1")
            assert evicted == EvictedAdapter("m_1", True, 4, 0.0)
            before = [stream.body for stream in streams]
            client.say("late")
            client.say("END")
            for stream, seen in zip(streams, before, strict=True):
                await stream.whole()
                # At most the refusal followed, which ends the stream.
                assert stream.body.startswith(seen)
                said, _, last = stream.body.removesuffix(b"\n\n").rpartition(b"data: ")
                assert said == b"data: early\n\n"
                assert json.loads(last)["error"]["code"] == Code.MODEL_DELETED
                assert stream.is_complete
            assert (await whole.whole()).status == 404
            assert whole.code == Code.MODEL_DELETED
            for other in others:
                await other.whole()
                assert other.body == b"data: early\n\ndata: late\n\ndata: [DONE]\n\n"

    asyncio.run(run())


def test_an_abort_ends_what_runs_and_the_adapter_stays() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            await client.load("m_1")
            chat = await client.running("m_1", stream=False)
            found = await client.ask("POST", paths.abort_path("m_1")).whole()
            assert decoded(found.body, AbortAnswer) == AbortAnswer("m_1", 1)
            assert (await chat.whole()).code == Code.MODEL_DELETED
            again = await client.running("m_1", stream=False)
            client.say("END")
            assert (await again.whole()).status == 200
            missing = await client.ask("POST", paths.abort_path("m_9")).whole()
            assert decoded(missing.body, AbortAnswer) == AbortAnswer("m_9", 0)

    asyncio.run(run())


def test_a_chunk_that_waits_for_a_slow_reader_is_dropped_before_the_eviction_answers() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            await client.load("m_1")
            chat = await client.running("m_1")
            client.say("read")
            await chat.has(b"read")
            chat.reads.clear()
            client.say("not read")
            await chat.waits.wait()
            await client.evict("m_1")
            seen = chat.body
            chat.reads.set()
            with pytest.raises(asyncio.CancelledError):
                await chat.whole()  # the server then closes the connection
            assert chat.body == seen == b"data: read\n\n"

    asyncio.run(run())


def test_a_request_that_found_the_name_before_the_eviction_is_refused_after_it() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            found, go_on = asyncio.Event(), asyncio.Event()

            async def between() -> None:
                found.set()
                await go_on.wait()

            vllm.between = between
            chat = client.chat("m_1")
            await found.wait()
            [evicted] = await client.evict("m_1")
            assert evicted.aborted == 0
            go_on.set()
            assert (await chat.whole()).code == Code.MODEL_DELETED
            assert vllm.added == []
            assert vllm.request_states == {}

    asyncio.run(run())


def test_what_goes_on_after_its_request_has_ended_uses_no_adapter() -> None:
    """As vLLM generates a response in the background."""

    async def run() -> None:
        vllm = FakeVllm(slots=1)
        async with started(vllm) as client:
            await client.load("m_1")
            late: list[asyncio.Task[None]] = []
            is_over = asyncio.Event()

            async def begin_late() -> None:
                await is_over.wait()
                lora = vllm.lora_requests["m_1"]
                await vllm.engine_core.add_request_async(Sequence("late", lora))

            async def between() -> None:
                late.append(asyncio.create_task(begin_late()))

            vllm.between = between
            chat = await client.running("m_1")
            client.say("END")
            await chat.whole()
            is_over.set()
            with pytest.raises(Refused):
                await late[0]
            assert "late" not in vllm.added
            await client.load("m_2")  # m_1 is idle, and makes room

    asyncio.run(run())


def test_an_eviction_waits_for_what_is_on_its_way_to_the_scheduler() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            vllm.adding.clear()
            chat = client.chat("m_1")
            await vllm.until(lambda: vllm.request_states)
            evicting = asyncio.create_task(client.evict("m_1"))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not evicting.done()
            vllm.adding.set()
            assert await evicting == [EvictedAdapter("m_1", True, 1, 0.0)]
            assert (await chat.whole()).code == Code.MODEL_DELETED

    asyncio.run(run())


def test_an_adapter_that_is_evicted_while_it_loads_is_never_used() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            vllm.loading.clear()
            loading = client.push("m_1")
            await vllm.until(lambda: vllm.paths)
            evicting = asyncio.create_task(client.evict("m_1"))
            await asyncio.sleep(0)
            vllm.loading.set()
            assert (await loading.whole()).code == Code.MODEL_DELETED
            await evicting
            assert (vllm.files, vllm.lora_requests) == ({}, {})

    asyncio.run(run())


def test_weights_that_are_left_fail_an_eviction_and_a_repeat_overwrites_them() -> None:
    async def run() -> None:
        vllm = FakeVllm(residue=0.5)
        async with started(vllm) as client:
            await client.load("m_1")
            assert await client.evict("m_1") == [EvictedAdapter("m_1", True, 0, 0.5)]
            assert (await client.push("m_1").whole()).code == Code.MODEL_DELETED
            again = EvictedAdapter("m_1", was_loaded=False, aborted=0, residue=0.0)
            assert await client.evict("m_1") == [again]
            assert await client.evict("m_1", "m_2") == [again, EvictedAdapter("m_2", False, 0, 0.0)]

    asyncio.run(run())


def test_the_adapter_that_was_not_used_for_longest_makes_room() -> None:
    async def run() -> None:
        vllm = FakeVllm(slots=2)
        async with started(vllm) as client:
            await client.load("m_1", "m_2")
            chat = await client.running("m_1")
            client.say("END")
            await chat.whole()
            await client.load("m_3")  # m_2 was used before m_1
            assert sorted(vllm.lora_requests) == ["m_1", "m_3"]
            assert len(vllm.files) == 2
            # It was not deleted: it may come back.
            await client.load("m_2")
            assert sorted(vllm.lora_requests) == ["m_2", "m_3"]

    asyncio.run(run())


def test_adapters_in_use_make_no_room() -> None:
    async def run() -> None:
        vllm = FakeVllm(slots=2)
        async with started(vllm) as client:
            await client.load("m_1", "m_2")
            chats = [await client.running(name) for name in ("m_1", "m_2")]
            refused = await client.push("m_3").whole()
            assert (refused.status, refused.code) == (503, Code.ENGINE_FULL)
            client.say("END")
            for chat in chats:
                await chat.whole()
            await client.load("m_3")

    asyncio.run(run())


def test_each_load_has_a_path_of_its_own_so_no_prefix_of_an_earlier_one_is_found() -> None:
    async def run() -> None:
        vllm = FakeVllm(slots=1)
        async with started(vllm) as client:
            await client.load("m_1", "m_2", "m_1")
            assert len(set(vllm.paths)) == 3

    asyncio.run(run())


def test_what_vllm_cannot_load_is_refused_with_its_reason_and_not_left_anywhere(
    scratch: Path,
) -> None:
    async def run() -> None:
        vllm = FakeVllm(slots=1)
        async with started(vllm) as client:
            for _ in range(3):  # a failed load takes no slot
                vllm.fails = RuntimeError("expected target modules")
                refused = await client.push("m_1").whole()
                assert (refused.status, refused.code) == (400, Code.INVALID_ADAPTER)
                assert b"expected target modules" in refused.body
            assert left_in(scratch) == []
            await client.load("m_1")

    asyncio.run(run())


def test_the_state_says_what_is_loaded_and_what_was_evicted() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            await client.load("m_2", "m_1")
            await client.evict("m_3")
            found = decoded((await client.ask("GET", paths.STATE).whole()).body, State)
            assert found.version == VERSION
            assert found.tombstones == ["m_3"]
            [base] = found.bases
            assert (base.name, base.adapters, base.slots) == (BASE, ["m_1", "m_2"], 2)
            assert base.rank_max == 16
            assert base.shapes == {"model.layers.0.self_attn.q_proj": (8, 8)}

    asyncio.run(run())
