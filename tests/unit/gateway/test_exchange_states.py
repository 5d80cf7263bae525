"""The table at the top of `stages.py`, held against every short life of an exchange."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.state_tables import transitions

from tunewarden.engine_protocol import paths
from tunewarden.errors import Error, Kind
from tunewarden.gateway import exchange, stages
from tunewarden.gateway.exchange import Exchange
from tunewarden.gateway.inference import Inference
from tunewarden.gateway.inference_request import InferenceRequest
from tunewarden.gateway.stages import Stage
from tunewarden.identity.key_format import Presented

BODY = b'{"model":"m","stream":true,"messages":[]}'
EVENT = b'data: {"model":"engine-model","choices":[]}\n\n'
DEPTH = 6
LONG_BYTES = 100


@pytest.fixture(autouse=True)
def _bodies_are_long_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LONG_BYTES", LONG_BYTES)


class _Loop:
    """Its time stands still; what is called soon is called when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], object]) -> None:
        self.soon.append(call)


class _Client:
    """A client that takes what is written, or one that is slow: then its connection is backed up."""

    def __init__(self, *, is_slow: bool) -> None:
        self.loop = _Loop()
        self.flushes = self
        self.is_slow = is_slow
        self.output = b""
        self.written = 0
        self.waits: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self.is_dropped = False

    def write(self, data: bytes) -> None:
        assert not self.is_dropped
        self.output += data
        self.written += len(data)

    def wait(self, is_done: Callable[[], bool], then: Callable[[], object]) -> None:
        self.waits.append((is_done, then))

    def flush(self) -> None:
        """All that was written has left."""
        self.is_slow = False
        waits, self.waits = self.waits, []
        for is_done, then in waits:
            assert is_done()
            then()

    def guard(self) -> None: ...

    def mark(self) -> None: ...

    def drop(self) -> None:
        self.is_dropped = True

    def has_unsent(self) -> bool:
        return False

    def has_flushed(self) -> bool:
        return not self.is_slow

    def is_backed_up(self) -> bool:
        return self.is_slow

    def has_room(self) -> bool:
        return not self.is_slow


class _Shared:
    """Admissions, gateway and usage in one: who asks is admitted, and nothing is sent anywhere."""

    body_bytes_max = 1000

    def __init__(self) -> None:
        self.admissions = self.gateway = self.usage = self
        self.observer = _Observer()
        self.held = 0
        self.may = True
        self.revoked: Callable[[], object] = bool
        self.loading = None
        self.long_bodies = self
        self.parsed: list[Callable[[Any], object]] = []

    def read(self, organization: str, body: bytes) -> "_Shared":
        """Parse a long body when a test says so; also that parse's future."""
        return self

    def add_done_callback(self, call: Callable[[Any], object]) -> None:
        self.parsed.append(call)

    def exception(self) -> None: ...

    def result(self) -> InferenceRequest:
        return InferenceRequest.parse(BODY)

    def identify(self, identify: Callable[[Any], object]) -> None:
        """The key is good; nobody looks."""

    def admit(self, *asked: Any) -> tuple[Any, Any]:
        self.held += 1
        self.revoked = asked[3]
        caller = SimpleNamespace(organization_id="o", organization_name="o")
        target = SimpleNamespace(engine_model="engine-model", public_id="m")
        ended = Error(Kind.NOT_FOUND, "The model was deleted.", code="model_deleted")
        return SimpleNamespace(metered=None, caller=caller, target=target), SimpleNamespace(
            n=1, ended_by=ended
        )

    def may_go_on(self, serving: object) -> bool:
        return self.may

    def end(self, serving: object) -> None:
        self.held -= 1

    def leave(self, serving: object, client: object) -> None:
        self.held -= 1

    def call(self, *_: object) -> "_Shared":
        return self

    def begin(self) -> None: ...

    def abort(self) -> None: ...

    def add(self, *_: object) -> None: ...


class _Observer:
    """Counts the ends that it is told of."""

    logs_accesses = False

    def __init__(self) -> None:
        self.ends = 0

    def ended(self, *_: object) -> None:
        self.ends += 1


class _Watched(Exchange):
    """Keeps the states that it goes to, by name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "stage":
            changes = self.__dict__.setdefault("changes", set())
            before, after = getattr(self, "stage", None), cast("Stage", value)
            if before is not None and before is not after:
                changes.add((before.name, after.name))
        super().__setattr__(name, value)


class _Life:
    """An exchange, and what happened to it."""

    def __init__(self, *, is_slow: bool, keep_alive: bool) -> None:
        self.client, self.shared = _Client(is_slow=is_slow), _Shared()
        self.overs = 0
        self.has_begun = False
        self.exchange = _Watched(
            cast("Inference", self.shared),
            cast("Any", self.client),
            paths.CHAT_COMPLETIONS,
            Presented("key_1", b"", "sk-…"),
            keep_alive=keep_alive,
            expects_continue=False,
            is_chunked=True,
            default_head=b"",
            on_over=self._over,
        )
        self.exchange._incoming.caller = cast(
            "Any", SimpleNamespace(organization_id="o", organization_name="o")
        )

    def _over(self) -> None:
        self.overs += 1

    @property
    def changes(self) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = self.exchange.__dict__["changes"]
        return found

    def happens(self, event: str) -> bool:  # noqa: PLR0912  a branch for each event
        """Let something happen; False if it cannot now."""
        one = self.exchange
        is_called = one.stage in {Stage.ENGINE, Stage.RESPONDING}
        match event:
            case "complete" | "complete long" if one.stage is Stage.RECEIVING:
                one.add(BODY + b" " * (LONG_BYTES if event == "complete long" else 0))
                one.complete()
            case "parsed" if self.shared.parsed:
                self.shared.parsed.pop()(self.shared)
            case "shutdown" if one.stage is not Stage.OVER:
                one.end_for_shutdown()
            case "advance" if one.stage is Stage.READY:
                one.advance()
            case "refuse" if one.stage in {Stage.RECEIVING, Stage.READY}:
                one.refuse(Error(Kind.INVALID, "no"))
            case "piece" | "end" if is_called:
                if not self.has_begun:
                    one.head_received(200, {b"content-type": b"text/event-stream"})
                    self.has_begun = True
                one.received(EVENT, is_end=event == "end")
            case "failed" if is_called:
                one.failed(Error(Kind.UNAVAILABLE, "broken"))
            case "cut" if self.shared.held and self.shared.may:
                self.shared.may = False
                self.shared.revoked()
            case "flush" if self.client.waits:
                self.client.flush()
            case "lost" if one.stage is not Stage.OVER:
                one.lost()
                for call in self.client.loop.soon:
                    call()
            case _:
                return False
        return True


EVENTS = (
    "complete", "complete long", "advance", "parsed", "refuse", "piece", "end", "failed", "cut", "flush", "lost",
    "shutdown",
)  # fmt: skip


def _lives() -> Iterator[_Life]:
    """Yield every life of up to DEPTH events."""
    for is_slow in (False, True):
        for keep_alive in (False, True):
            lives: list[tuple[str, ...]] = [()]
            for _ in range(DEPTH):
                longer = [(*events, event) for events in lives for event in EVENTS]
                lives = []
                for events in longer:
                    life = _Life(is_slow=is_slow, keep_alive=keep_alive)
                    if all(life.happens(event) for event in events):
                        lives.append(events)
                        yield life


def test_an_exchange_goes_from_state_to_state_as_the_table_says() -> None:
    changes = {change for life in _lives() for change in life.changes}
    table = {(before, after) for before, _, after in transitions(stages, Stage)}
    assert changes == {(before, after) for before, after in table if before != after}


def test_an_exchange_that_is_over_holds_no_guard_and_said_so_once() -> None:
    overs = 0
    for life in _lives():
        if life.exchange.stage is Stage.OVER:
            overs += 1
            assert life.shared.held == 0
            assert life.overs <= 1, "`lost` does not say so: its connection is gone"
            assert life.shared.observer.ends == 1
        assert life.shared.held >= 0
    assert overs > 100
