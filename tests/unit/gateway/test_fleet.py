"""Where requests go among several replicas, and what becomes of them when one fails: with servers that a test scripts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tunewarden.engines.address import Address
from tunewarden.engines.upstream import Upstream
from tunewarden.errors import Error, Kind
from tunewarden.gateway.fleet import Fleet, Pace, ranked
from tunewarden.gateway.routing import Gateway
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.model_lookup import Target
from tunewarden.registry.replicas import Replica

BASE = Base("b", BaseKind.REMOTE, "", "b", "{}", 0, 16)
# Short pauses: the tests wait for states, so only the order matters.
PACE = Pace(silent_seconds=0.02, probe_seconds=0.5, pause_seconds=0.02, pause_seconds_max=0.05)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
NOT_LOADED = b'{"error": {"message": "", "code": "adapter_not_loaded"}}'
DELETED = b'{"error": {"message": "", "code": "model_deleted"}}'


def replicas(*numbers: int) -> tuple[Replica, ...]:
    return tuple(Replica(n, "b", str(n), f"http://127.0.0.1:{n}/v1", 16) for n in numbers)


def model(name: str = "m_1", *numbers: int) -> Target:
    return Target("ft:b", BASE, 7, name, replicas(*numbers or (1, 2, 3)))


def base(*numbers: int) -> Target:
    return Target("b", BASE, None, "b", replicas(*numbers or (1, 2, 3)))


class Scripted:
    """A replica on a unix socket. `is_hung`: it reads and says nothing; `refusal`: the body of its 404 to a chat."""

    def __init__(self, directory: Path, n: int) -> None:
        self.path = directory / f"{n}.sock"
        self.upstream = Upstream(Address(socket=str(self.path)))
        self.n = n
        self.chats = 0
        self.probes = 0
        self.loads = 0
        self.is_hung = False
        self.refusal = b""
        self.holds = False  # keeps the chats that it received unanswered
        self.load_error: Error | None = None
        self.loaded: set[str] = set()
        self.changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def has(self, target: Target) -> bool:
        return target.n is None or target.engine_model in self.loaded

    async def load(self, target: Target) -> None:
        self.loads += 1
        if self.is_hung:
            await asyncio.get_running_loop().create_future()
        if self.load_error is not None:
            raise self.load_error
        self.loaded.add(target.engine_model)

    def unload(self, target: Target) -> None:
        self.loaded.discard(target.engine_model)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """End as a killed process does: every connection closes, and the address refuses."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self.path.unlink(missing_ok=True)

    async def until(self, what: Callable[["Scripted"], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: what(self))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                is_chat = head.startswith(b"POST")
                if is_chat:
                    await reader.readexactly(2)
                async with self.changed:
                    self.chats += is_chat
                    self.probes += not is_chat
                    self.changed.notify_all()
                if self.is_hung or (is_chat and self.holds):
                    continue
                if is_chat and self.refusal:
                    size = len(self.refusal)
                    writer.write(b"HTTP/1.1 404 -\r\ncontent-length: %d\r\n\r\n" % size)
                    writer.write(self.refusal)
                else:
                    writer.write(OK + b"{}")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class Answer:
    """What became of one request."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[int | Error] = asyncio.get_running_loop().create_future()
        self._status = 0

    def head_received(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status

    def received(self, piece: bytes, *, is_end: bool) -> None:
        if is_end:
            self.ended.set_result(self._status)

    def failed(self, error: Error) -> None:
        self.ended.set_result(error)


class World:
    """A gateway and its replicas."""

    def __init__(self, directory: Path, count: int, per_engine_max: int = 100) -> None:
        self.engines = {n: Scripted(directory, n) for n in range(1, count + 1)}
        self.numbers = tuple(self.engines)
        self.gateway = Gateway(
            self.engines[1],
            lambda _, replica: self.engines[replica.n],
            per_engine_max=per_engine_max,
            per_model_max=100,
            pace=PACE,
        )

    def begin(self, target: Target) -> Answer:
        answer = Answer()
        self.gateway.call(target, "org", "/chat/completions", b"{}", answer).begin()
        return answer

    async def ask(self, target: Target) -> int | Error:
        return await self.begin(target).ended

    def first_of(self, name: str) -> Scripted:
        return self.engines[ranked(name, self.numbers)[0]]

    def second_of(self, name: str) -> Scripted:
        return self.engines[ranked(name, self.numbers)[1]]

    async def until_live(self, n: int) -> None:
        fleet = self.gateway._fleets["b"]
        while not fleet._links[n].is_live:  # noqa: ASYNC110  the product needs no event for it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _world(
    directory: Path, count: int = 3, per_engine_max: int = 100
) -> AsyncIterator[World]:
    found = World(directory, count, per_engine_max)
    async with AsyncExitStack() as stack:
        for engine in found.engines.values():
            await engine.start()
            stack.push_async_callback(engine.stop)
        yield found


def _run(directory: Path, scenario: Callable[[World], Awaitable[None]], count: int = 3) -> None:
    async def run() -> None:
        async with _world(directory, count) as world, asyncio.timeout(10):
            await scenario(world)

    asyncio.run(run())


def test_a_replica_that_joins_or_leaves_moves_its_own_models_only() -> None:
    names = [f"m_{number}" for number in range(2000)]
    before = {name: ranked(name, (1, 2, 3, 4))[0] for name in names}
    without = {name: ranked(name, (1, 2, 4))[0] for name in names}
    assert all(without[name] == before[name] for name in names if before[name] != 3)
    counts = Counter(before.values())
    assert all(400 < counts[n] < 600 for n in (1, 2, 3, 4)), counts


def test_a_model_stays_on_its_replica_and_models_spread(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for name in [f"m_{number}" for number in range(12)] * 2:
            assert await world.ask(model(name)) == 200
        assert sum(engine.loads for engine in world.engines.values()) == 12
        assert all(engine.loads for engine in world.engines.values())

    _run(tmp_path, scenario)


def test_a_base_goes_to_the_least_loaded_replica_and_equals_take_turns(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for engine in world.engines.values():
            engine.holds = True
        begun = [world.begin(base()) for _ in range(9)]
        for engine in world.engines.values():
            await engine.until(lambda one: one.chats == 3)
        assert not any(one.ended.done() for one in begun)

    _run(tmp_path, scenario)


def test_a_replica_with_more_than_its_share_in_flight_passes_a_model_on(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for engine in world.engines.values():
            engine.holds = True
        for _ in range(12):
            world.begin(model("m_1"))
        await world.first_of("m_1").until(lambda one: one.chats == 5)  # ceil(1.25 * 12 / 3)
        await world.second_of("m_1").until(lambda one: one.chats >= 4)
        fleet = world.gateway._fleets["b"]
        assert max(link.load.in_flight for link in fleet._links.values()) == 5

    _run(tmp_path, scenario)


def test_a_replica_that_is_killed_costs_no_request_that_had_no_byte(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        first, second = world.first_of("m_1"), world.second_of("m_1")
        assert await world.ask(model("m_1")) == 200
        first.holds = True
        waiting = [world.begin(model("m_1")) for _ in range(2)]
        await first.until(lambda one: one.chats == 3)
        await first.stop()
        assert [await one.ended for one in waiting] == [200, 200]
        assert second.chats == 2
        # While it is away, nobody is sent to it; when it answers a probe, its models come back.
        assert [await world.ask(model("m_1")) for _ in range(3)] == [200] * 3
        first.holds = False
        first.loaded.clear()
        await first.start()
        await world.until_live(first.n)
        chats = first.chats
        assert await world.ask(model("m_1")) == 200
        assert first.chats > chats

    _run(tmp_path, scenario)


def test_a_replica_that_hangs_passes_on_what_waits_for_its_first_byte(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        first = world.first_of("m_1")
        assert await world.ask(model("m_1")) == 200
        first.is_hung = True
        assert await world.ask(model("m_1")) == 200
        assert world.second_of("m_1").chats == 1
        # No storm: while it hangs, requests are not sent to it.
        chats = first.chats
        assert [await world.ask(model("m_1")) for _ in range(5)] == [200] * 5
        assert first.chats == chats
        await first.until(lambda one: one.probes >= 2)
        first.is_hung = False
        await world.until_live(first.n)

    _run(tmp_path, scenario)


def test_a_load_into_a_replica_that_hangs_is_ended_and_done_on_another(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        first = world.first_of("m_1")
        first.is_hung = True
        assert [await one.ended for one in [world.begin(model("m_1")) for _ in range(3)]] == [
            200
        ] * 3
        assert first.chats == 0
        assert world.second_of("m_1").chats == 3

    _run(tmp_path, scenario)


def test_a_request_goes_to_one_other_replica_and_no_further(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for engine in world.engines.values():
            engine.holds = True
        waiting = world.begin(model("m_1"))
        first, second = world.first_of("m_1"), world.second_of("m_1")
        await first.until(lambda one: one.chats == 1)
        await first.stop()
        await second.until(lambda one: one.chats == 1)
        await second.stop()
        failed = await waiting.ended
        assert isinstance(failed, Error)
        assert (failed.kind, failed.retry_after_seconds) == (Kind.UNAVAILABLE, 1)
        assert sum(engine.chats for engine in world.engines.values()) == 2

    _run(tmp_path, scenario)


def test_without_a_live_replica_there_is_a_503_at_once_until_one_is_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert [await world.ask(base(1, 2)) for _ in range(2)] == [200, 200]
        for engine in world.engines.values():
            await engine.stop()
        failed = await world.ask(base(1, 2))
        assert isinstance(failed, Error)
        with pytest.raises(Error) as refused:
            await world.ask(base(1, 2))
        assert (refused.value.kind, refused.value.retry_after_seconds) == (Kind.UNAVAILABLE, 1)
        await world.engines[2].start()
        await world.until_live(2)
        assert await world.ask(base(1, 2)) == 200

    _run(tmp_path, scenario, 2)


def test_the_only_replica_is_tried_each_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.engines[1].stop()
        for _ in range(2):
            failed = await world.ask(base(1))
            assert isinstance(failed, Error)
        await world.engines[1].start()
        assert await world.ask(base(1)) == 200

    _run(tmp_path, scenario, 1)


@pytest.mark.parametrize("refusal", [NOT_LOADED, DELETED])
def test_a_replica_that_does_not_take_the_model_passes_it_on(
    tmp_path: Path, refusal: bytes
) -> None:
    """One that restarts again and again; one that is being removed, which refuses what it evicted."""

    async def scenario(world: World) -> None:
        world.first_of("m_1").refusal = refusal
        assert await world.ask(model("m_1")) == 200
        assert world.second_of("m_1").chats == 1

    _run(tmp_path, scenario)


def test_a_load_that_is_refused_for_now_is_done_on_another_replica(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        first = world.first_of("m_1")
        first.load_error = Error(Kind.UNAVAILABLE, "No slot.", code="engine_full")
        assert await world.ask(model("m_1")) == 200
        assert world.gateway._fleets["b"]._links[first.n].is_live
        first.load_error = Error(Kind.ENGINE_FAILED, "The weights are bad.")
        assert await world.ask(model("m_1")) == first.load_error

    _run(tmp_path, scenario)


def test_replicas_join_and_leave_between_two_requests(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for _ in range(3):
            assert await world.ask(base(1)) == 200
        for _ in range(2):
            assert await world.ask(base(1, 2)) == 200
        assert [engine.chats for engine in world.engines.values()] == [4, 1, 0]
        for _ in range(2):
            assert await world.ask(base(2)) == 200
        assert [engine.chats for engine in world.engines.values()] == [4, 3, 0]

    _run(tmp_path, scenario)


def test_a_full_replica_is_passed_over_and_full_ones_are_busy(tmp_path: Path) -> None:
    async def run() -> None:
        async with _world(tmp_path, 2, per_engine_max=2) as world:
            for engine in world.engines.values():
                engine.holds = True
            for _ in range(4):
                world.begin(model("m_1", 1, 2))
            assert [link.load.in_flight for link in world.gateway._fleets["b"]._links.values()] == [
                2,
                2,
            ]
            with pytest.raises(Error) as refused:
                world.begin(model("m_1", 1, 2))
            assert refused.value.code == "engine_busy"

    asyncio.run(run())


def test_nothing_is_counted_any_more_when_all_has_ended(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        first = world.first_of("m_1")
        first.is_hung = True
        answers = [world.begin(model("m_1")) for _ in range(3)] + [world.begin(base())]
        for one in answers:
            assert await one.ended == 200
        fleet: Fleet = world.gateway._fleets["b"]
        assert [link.load.in_flight for link in fleet._links.values()] == [0, 0, 0]
        assert not any(link.waiting for link in fleet._links.values())
        assert not world.gateway._in_flight

    _run(tmp_path, scenario)
