"""What an engine does on adapters with a lease, and what it does not without one; bases go on."""

import asyncio
import json
import time

import pytest
from tests.fakes.vllm import BASE, FakeVllm
from tests.unit.vllm_plugin.asgi import LEASE_SECONDS, MEMBER, started
from tests.unit.vllm_plugin.conftest import FakeClock

from tunewarden.engine_protocol.codes import Code
from tunewarden.engine_protocol.lease import held_seconds
from tunewarden_vllm import leases
from tunewarden_vllm.leases import Lease, boottime
from tunewarden_vllm.refusals import Refused

HELD = held_seconds(LEASE_SECONDS)


def test_without_a_lease_nothing_is_loaded_and_bases_are_served() -> None:
    async def run() -> None:
        async with started(FakeVllm(), has_lease=False) as client:
            refused = await client.push("m_1").whole()
            assert (refused.status, refused.code) == (503, Code.NO_LEASE)
            nonce = await client.nonce_of(client.begin())
            # Begun is not held: only a renewal proves that the answer arrived.
            assert (await client.push("m_1").whole()).code == Code.NO_LEASE
            await client.nonce_of(client.renew(nonce))
            await client.load("m_1")
            chat = await client.running(BASE, stream=False)
            client.say("END")
            assert (await chat.whole()).status == 200

    asyncio.run(run())


def test_when_a_lease_ends_streams_end_with_it_and_everything_is_overwritten(
    clock: FakeClock,
) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1", "m_2")
            stream, base = await client.running("m_1"), await client.running(BASE)
            client.say("early")
            for one in (stream, base):
                await one.has(b"early")
            clock.now += HELD
            client.say("late")
            client.say("END")
            await stream.whole()
            said, _, last = stream.body.removesuffix(b"\n\n").rpartition(b"data: ")
            assert said == b"data: early\n\n"
            assert json.loads(last)["error"]["code"] == Code.NO_LEASE
            assert (await base.whole()).body.endswith(b"data: late\n\ndata: [DONE]\n\n")
            await vllm.until(lambda: not vllm.files)
            assert vllm.lora_requests == {}
            assert (await client.push("m_1").whole()).code == Code.NO_LEASE

    asyncio.run(run())


def test_a_request_that_found_the_name_before_the_lease_ended_is_refused_after_it(
    clock: FakeClock,
) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")

            async def between() -> None:
                clock.now += HELD

            vllm.between = between
            assert (await client.chat("m_1").whole()).code == Code.NO_LEASE
            assert vllm.added == []

    asyncio.run(run())


def test_an_adapter_that_loads_while_the_lease_ends_is_overwritten(clock: FakeClock) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            vllm.loading.clear()
            loading = client.push("m_1")
            await vllm.until(lambda: vllm.paths)
            beginning = client.begin("member-2", MEMBER)
            await asyncio.sleep(0)
            vllm.loading.set()
            assert (await loading.whole()).code == Code.NO_LEASE
            assert (await beginning.whole()).status == 200
            assert vllm.files == {}

    asyncio.run(run())


def test_another_lease_begins_empty_and_ends_the_one_before() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            nonce = await client.nonce_of(client.renew(""))
            await client.load("m_1")
            stream = await client.running("m_1")
            client.say("early")
            await stream.has(b"early")
            await client.has_lease("member-2", MEMBER)
            assert vllm.files == {}
            client.say("late")
            assert b"late" not in (await stream.whole()).body
            assert (await client.renew(nonce).whole()).code == Code.NO_LEASE
            # A push that was sent for the lease before, and arrives now.
            assert (await client.push("m_1").whole()).code == Code.NO_LEASE
            assert (await client.push("m_1", member="member-2").whole()).status == 200

    asyncio.run(run())


def test_a_lease_that_could_not_overwrite_does_not_begin() -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            vllm.residue = 1.0
            failed = await client.begin("member-2", MEMBER).whole()
            assert (failed.status, failed.code) == (500, Code.ENGINE_FAILED)
            assert (await client.push("m_2").whole()).code == Code.NO_LEASE
            await client.has_lease("member-2", MEMBER)

    asyncio.run(run())


def test_an_end_whose_overwriting_fails_is_repeated(clock: FakeClock) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            vllm.residue = 1.0
            clock.now += HELD
            await vllm.until(lambda: not vllm.residue)
            await client.has_lease("member-2", MEMBER)
            assert (await client.push("m_1", member="member-2").whole()).status == 200

    asyncio.run(run())


def test_an_eviction_needs_no_lease(clock: FakeClock) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            clock.now += HELD
            [evicted] = await client.evict("m_1")
            assert evicted.residue == 0
            await client.has_lease("member-2", MEMBER)
            refused = await client.push("m_1", member="member-2").whole()
            assert refused.code == Code.MODEL_DELETED

    asyncio.run(run())


def test_leases_of_two_replicas_at_one_address_end_apart(clock: FakeClock) -> None:
    async def run() -> None:
        vllm = FakeVllm()
        async with started(vllm) as client:
            await client.load("m_1")
            clock.now += HELD / 2
            await client.has_lease("other")
            assert (await client.push("m_2", member="other").whole()).status == 200
            clock.now += HELD / 2
            await vllm.until(lambda: len(vllm.files) == 1)
            assert list(vllm.lora_requests) == ["m_2"]
            chat = await client.running("m_2", stream=False)
            client.say("END")
            assert (await chat.whole()).status == 200

    asyncio.run(run())


def held(clock: FakeClock) -> tuple[Lease, str]:
    """Return a lease that is held, and its newest nonce."""
    lease = Lease(MEMBER, LEASE_SECONDS, clock)
    return lease, lease.renew(lease.new_nonce())


def test_a_delayed_renewal_extends_nothing() -> None:
    clock = FakeClock()
    lease, second = held(clock)
    clock.now += HELD - 0.1  # the renewal was held so long by the network
    lease.renew(second)
    clock.now += 0.1
    assert not lease.holds()
    with pytest.raises(Refused):
        lease.renew(second)


def test_a_renewal_that_arrives_after_the_end_begins_nothing() -> None:
    clock = FakeClock()
    lease = Lease(MEMBER, LEASE_SECONDS, clock)
    first = lease.new_nonce()
    clock.now += HELD
    with pytest.raises(Refused):
        lease.renew(first)
    assert not lease.holds()
    assert lease.has_lapsed


def test_a_renewal_without_a_nonce_extends_nothing_and_gets_one() -> None:
    clock = FakeClock()
    lease, _ = held(clock)
    clock.now += HELD - 0.1
    nonce = lease.renew("")
    lease.renew(nonce)
    clock.now += HELD - 0.1
    assert lease.holds()
    for _ in range(2 * leases.NONCES_MAX):
        lease.renew("")
    clock.now += 0.1
    assert not lease.holds()


def test_the_look_before_each_piece_is_cheap() -> None:
    """Printed; the bound only catches a look that became a different thing."""
    lease = Lease(MEMBER, LEASE_SECONDS, boottime)
    lease.renew(lease.new_nonce())
    began = time.process_time()
    for _ in range(20_000):
        lease.holds()
    micros = (time.process_time() - began) * 1e6 / 20_000
    print(f"{micros:.2f} µs a look")
    assert micros < 100
