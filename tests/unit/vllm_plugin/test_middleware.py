"""What reaches vLLM through the plugin, what does not, and what a push may hold."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.fakes.vllm import BASE, FakeVllm
from tests.unit.vllm_plugin.asgi import CONFIG, MEMBER, WEIGHTS, left_in, started

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.codes import Code
from tunewarden_vllm import pushes


def test_vllms_own_ways_to_load_and_unload_are_closed() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            closed = (
                "/v1/load_lora_adapter",
                "/v1/unload_lora_adapter",
                "/adapters",
                "/adapters/m_1",
            )
            for path in closed:
                assert (await client.ask("POST", path, b"{}").whole()).status == 403

    asyncio.run(run())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", paths.STATE),
        ("POST", paths.EVICTIONS),
        ("PUT", paths.push_path("m_1", BASE, MEMBER)),
    ],
)
def test_our_routes_need_the_key_that_vllm_has(method: str, path: str) -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            found = await client.ask(method, path, b"{}", key="another").whole()
            assert found.status == 401

    asyncio.run(run())


def test_a_base_is_served_and_a_missing_route_stays_vllms() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            chat = await client.running(BASE, stream=False)
            client.say("END")
            assert json.loads((await chat.whole()).body) == {"text": [], "finish": "stop"}
            other = await client.ask("GET", "/metrics-of-another").whole()
            assert (other.status, json.loads(other.body)) == (404, {"detail": "Not Found"})

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (paths.BASES, {"name": BASE, "path": "/models/base"}, 200, None),
        (paths.BASES, {"name": "other", "path": "/models/other"}, 404, Code.BASE_NOT_LOADED),
        (paths.EVICTIONS, {"names": []}, 400, None),
        (paths.EVICTIONS, {"names": ["m"], "also": 1}, 400, None),
        (paths.ADAPTERS, {"name": "m_1", "base": BASE, "path": "/etc"}, 404, None),
        (f"{paths.ENGINE}/nothing", {}, 404, None),
    ],
)
def test_the_protocol_answers(path: str, body: object, status: int, code: str | None) -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            found = await client.ask("POST", path, json.dumps(body).encode()).whole()
            assert found.status == status
            assert code is None or found.code == code

    asyncio.run(run())


@pytest.mark.parametrize(
    ("config", "weights", "status", "says"),
    [
        (json.dumps({"r": 17}).encode(), WEIGHTS, 400, "ranks up to 16 (--max-lora-rank)"),
        (json.dumps({"r": "8"}).encode(), WEIGHTS, 400, "ranks up to 16"),
        (b"{", WEIGHTS, 400, "names no rank"),
        (b"[]", WEIGHTS, 400, "names no rank"),
        (b"{}", WEIGHTS, 400, "names no rank"),
        (CONFIG, b"", 400, "no adapter"),
        (CONFIG, bytes(pushes.HEADER_BYTES + 4 * 16 * 16 + 1), 413, "No adapter of rank 16"),
        (b"x" * (pushes.CONFIG_BYTES_MAX + 1), WEIGHTS, 413, "config is larger"),
    ],
)
def test_a_push_that_cannot_be_served_is_refused(
    config: bytes, weights: bytes, status: int, says: str, scratch: Path
) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            found = await client.push("m_1", config=config, weights=weights).whole()
            assert found.status == status
            assert says in json.loads(found.body)["error"]["message"]
            assert vllm.paths == []
            assert left_in(scratch) == []

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"", b"1234567", (50).to_bytes(8, "little") + b"{"])
def test_a_push_that_ends_early_is_refused(body: bytes) -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            found = await client.ask("PUT", paths.push_path("m_1", BASE, MEMBER), body).whole()
            assert (found.status, found.code) == (400, Code.INVALID_ADAPTER)

    asyncio.run(run())


def test_a_push_to_another_base_is_refused() -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            found = await client.push("m_1", base="other").whole()
            assert (found.status, found.code) == (404, Code.BASE_NOT_LOADED)

    asyncio.run(run())


def test_a_second_push_of_a_loaded_adapter_loads_nothing() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1", "m_1")
            assert len(vllm.paths) == 1

    asyncio.run(run())


def test_a_client_that_disconnects_leaves_no_file(scratch: Path) -> None:
    async def run() -> None:
        async with started(FakeVllm()) as client:
            push = client.push("m_1")
            push.is_cut = True
            await push.whole()
            assert push.status == 0
            assert left_in(scratch) == []

    asyncio.run(run())


def test_files_are_overwritten_before_they_are_unlinked(tmp_path: Path) -> None:
    """A mapping of a worker may outlive the name."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / pushes.WEIGHTS).write_bytes(b"w" * 3_000_000)
    with (directory / pushes.WEIGHTS).open("rb") as held:
        pushes.erase(directory)
        assert set(held.read()) == {0}
    assert not directory.exists()


def test_a_start_removes_what_killed_processes_left_and_nothing_else(scratch: Path) -> None:
    mine = f"{pushes.PREFIX}{os.getuid()}-"
    killed, other = scratch / f"{mine}{os.getpid()}-1-x", scratch / "tunewarden-other"
    for directory in (killed, other):
        directory.mkdir()
        (directory / "file").write_bytes(b"weights")
    first = pushes.prepare(scratch)
    second = pushes.prepare(scratch)
    assert sorted(scratch.iterdir()) == sorted([first, second, other])
    assert first.stat().st_mode & 0o777 == 0o700
