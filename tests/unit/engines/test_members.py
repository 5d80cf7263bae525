"""Who holds a lease, who ends it, and whose word proves an eviction."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.fakes.clock import HandClock

from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.engine_protocol.lease import ended_seconds
from tunewarden.engine_protocol.messages import VERSION, EvictedAdapter, Renewal
from tunewarden.engines.lease_agent import LeaseAgent
from tunewarden.engines.port import Eviction, LeaseRefused, Seen
from tunewarden.engines.tls import ClientTls
from tunewarden.engines.vllm_control import VllmControl
from tunewarden.engines.vllm_holder import VllmHolder
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases, members, replicas
from tunewarden.registry.bases import Base, BaseKind
from tunewarden.registry.members import Member, MemberState
from tunewarden.registry.replicas import Replica

SECONDS = 5.0


class FakeControl:
    """A `VllmControl` of an engine that is told what to answer. What it does not answer takes the caller's time."""

    label = "base/1"

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.who = Seen("process-1", "c1")
        self.leases: set[str] = set()
        self.is_silent = False
        self.is_refusing = False
        self.was_loaded = True
        self.sent: list[Renewal] = []

    def seen(self) -> Seen:
        self._answer(1.0)
        return self.who

    def renew(self, renewal: Renewal) -> tuple[str, Seen]:
        self.sent.append(renewal)
        self._answer(renewal.seconds)
        if renewal.begins:
            self.leases -= set(renewal.replaces)
            self.leases.add(renewal.member)
        if renewal.member not in self.leases:
            raise LeaseRefused
        return f"nonce-{len(self.sent)}", self.who

    def evict(
        self, internal_id: str, *, within_seconds: float
    ) -> tuple[EvictedAdapter, Seen] | None:
        if self.is_silent:
            self.clock.sleep(within_seconds)
            return None
        return EvictedAdapter(internal_id, self.was_loaded, 0, 0.0), self.who

    def models(self) -> list[str]:
        self._answer(1.0)
        return ["m_1"]

    def _answer(self, seconds: float) -> None:
        if self.is_silent:
            self.clock.sleep(seconds)
            raise Error(Kind.UNAVAILABLE, "silent")


class Installation:
    """One replica with its rows, its agent and what deletion has of it."""

    def __init__(self, directory: Path) -> None:
        self.clock = HandClock()
        self.database = SqliteDatabase(directory / "t.sqlite", self.clock, migrate=True)
        with self.database.write() as tx:
            bases.add(
                tx,
                name="base",
                kind=BaseKind.REMOTE,
                location="http://127.0.0.1:1/v1",
                engine_model="base",
                modules={},
                rank_max=8,
            )
        [self.replica] = replicas.of(self.database, "base")
        self.control = FakeControl(self.clock)
        self.agent = self.new_agent()
        control: VllmControl = self.control  # type: ignore[assignment]  # as far as deletion uses it
        scratch = directory / "scratch"
        self.holder = VllmHolder(control, self.replica, self.database, self.clock, scratch)

    def new_agent(self) -> LeaseAgent:
        return LeaseAgent(
            self.database, self.clock, self.replica.n, self.control, lease_seconds=SECONDS
        )

    @property
    def newest(self) -> Member:
        found = members.newest(self.database, self.replica.n)
        assert found is not None
        return found

    def evicted(self, loaded_by: str | None = "process-1") -> Eviction:
        return self.holder.evict("m_1", loaded_by=loaded_by, within_seconds=5.0).how


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_an_engine_joins_and_is_renewed(installation: Installation) -> None:
    installation.agent.step()
    first = installation.newest
    assert (first.state, first.renewals, first.certificate) == (MemberState.LIVE, 2, "c1")
    for count in (3, 4):
        assert installation.agent.step() == SECONDS / 3
        assert installation.newest.renewals == count
    begun, *renewals = installation.control.sent
    assert begun.begins
    assert [one.nonce for one in renewals] == ["nonce-1", "nonce-2", "nonce-3"]


def test_an_engine_that_is_silent_is_not_counted_again(installation: Installation) -> None:
    installation.agent.step()
    installation.control.is_silent = True
    for _ in range(3):
        installation.agent.step()
    assert installation.newest.renewals == 2
    assert len({one.nonce for one in installation.control.sent[-3:]}) == 1


def test_another_runner_goes_on_with_the_lease(installation: Installation) -> None:
    installation.agent.step()
    before = installation.newest
    installation.new_agent().step()
    after = installation.newest
    assert after.id == before.id
    assert after.renewals > before.renewals
    # The first of the two renewals asks for a nonce, and extends nothing.
    assert [one.nonce for one in installation.control.sent[-2:]] == ["", "nonce-3"]


@pytest.mark.parametrize("who", [Seen("process-2", "c1"), Seen("process-1", "c2")])
def test_another_process_or_certificate_joins_anew(installation: Installation, who: Seen) -> None:
    installation.agent.step()
    before = installation.newest
    installation.control.who = who
    installation.agent.step()
    installation.agent.step()
    after = installation.newest
    assert after.id != before.id
    assert (after.incarnation, after.certificate) == (who.incarnation, who.certificate)
    # A new process ends nothing of the one before, which may be somewhere else; the same process has dropped it.
    left = {one.id for one in members.of(installation.database, installation.replica.n)}
    assert (before.id in left) == (who.incarnation != before.incarnation)


def test_a_member_that_was_counted_out_joins_anew(installation: Installation) -> None:
    installation.agent.step()
    before = installation.newest
    assert members.count_out(installation.database, before)
    installation.agent.step()
    installation.agent.step()
    assert installation.newest.id != before.id
    assert installation.newest.state is MemberState.LIVE
    assert not members.count_renewal(installation.database, before.id)


def test_a_member_that_was_renewed_is_not_counted_out(installation: Installation) -> None:
    installation.agent.step()
    seen = installation.newest
    installation.agent.step()
    assert not members.count_out(installation.database, seen)


def test_a_replica_that_was_removed_gets_no_member(installation: Installation) -> None:
    with installation.database.write() as tx:
        replica = replicas.leave(tx, "base", "1")
        members.forget(tx, replica.n)
        replicas.remove(tx, replica)
    installation.agent.step()
    assert members.newest(installation.database, installation.replica.n) is None


def test_an_eviction_is_the_engines_word(installation: Installation) -> None:
    installation.agent.step()
    assert installation.evicted() is Eviction.ZEROED
    installation.control.was_loaded = False
    assert installation.evicted() is Eviction.NOT_LOADED
    assert installation.evicted(None) is Eviction.NOT_LOADED


def test_a_silent_engine_is_waited_for_as_long_as_its_lease(installation: Installation) -> None:
    installation.agent.step()
    installation.control.is_silent = True
    began = installation.clock.monotonic()
    assert installation.evicted() is Eviction.LEASE_ENDED
    took = installation.clock.monotonic() - began
    assert ended_seconds(SECONDS) <= took < ended_seconds(SECONDS) + 0.5
    # The next one asks once more, and does not wait.
    assert installation.evicted() is Eviction.LEASE_ENDED
    assert installation.clock.monotonic() - began - took < 1
    assert installation.holder.models() == []


def test_an_engine_that_is_renewed_and_does_not_evict_keeps_the_deletion(
    installation: Installation,
) -> None:
    installation.agent.step()
    control = installation.control

    def unanswered(internal_id: str, *, within_seconds: float) -> None:
        installation.clock.sleep(within_seconds / 2)
        installation.agent.step()

    control.evict = unanswered  # type: ignore[method-assign]  # for this test
    with pytest.raises(Error, match="has not evicted"):
        installation.evicted()
    assert installation.newest.state is MemberState.LIVE


def test_another_process_at_the_address_does_not_speak_for_the_one_before(
    installation: Installation,
) -> None:
    installation.agent.step()
    installation.control.who = Seen("process-2", "c1")
    installation.control.was_loaded = False
    began = installation.clock.monotonic()
    installation.agent.step()
    installation.agent.step()
    assert installation.evicted("process-1") is Eviction.LEASE_ENDED
    assert installation.clock.monotonic() - began >= ended_seconds(SECONDS)


def test_the_word_of_another_certificate_is_no_proof(installation: Installation) -> None:
    installation.agent.step()
    installation.control.who = Seen("process-1", "of another engine")
    assert installation.evicted() is Eviction.LEASE_ENDED


def test_an_engine_that_never_had_a_lease_must_answer(installation: Installation) -> None:
    installation.control.is_silent = True
    with pytest.raises(Error, match="has not evicted"):
        installation.evicted(None)
    with pytest.raises(Error, match="silent"):
        installation.holder.models()
    installation.control.is_silent = False
    assert installation.evicted() is Eviction.ZEROED


@contextmanager
def _answering(status: int, body: bytes) -> Iterator[VllmControl]:
    """Run an engine that gives one answer to everything; yield a client of it."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  the library's

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the library's
            """Be silent."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/v1"
        base = Base("base", BaseKind.REMOTE, "", "base", "{}", 0, 8)
        yield VllmControl(base, Replica(1, "base", "1", url, 8), None, ClientTls(None), "base/1")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_a_plugin_of_another_version_is_refused_clearly(version: int) -> None:
    state = {"version": version, "pid": 1, "incarnation": "i", "bases": [], "tombstones": []}
    with _answering(200, json.dumps(state).encode()) as control:
        with pytest.raises(Error) as refused:
            control.seen()
        assert refused.value.kind is Kind.MISCONFIGURED
        assert f"speaks version {version}" in refused.value.message
        assert control.evict("m_1", within_seconds=5.0) is None
        with pytest.raises(Error, match="not as tunewarden-vllm does"):
            control.renew(Renewal("m", SECONDS))


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"{}"), (200, b"[]"), (200, b"{}"), (500, b""), (503, b"{")]
)
def test_what_is_no_answer_of_the_plugin_is_none(status: int, body: bytes) -> None:
    with _answering(status, body) as control:
        for ask in (control.seen, control.models, control.running):
            with pytest.raises(Error) as refused:
                ask()
            assert refused.value.kind is Kind.UNAVAILABLE
        with pytest.raises(Error, match="not as tunewarden-vllm does"):
            control.renew(Renewal("m", SECONDS))


def test_a_refused_lease_is_told_from_other_refusals() -> None:
    body = json.dumps({"error": {"message": "no", "code": "no_lease"}}).encode()
    with _answering(503, body) as control, pytest.raises(LeaseRefused):
        control.renew(Renewal("m", SECONDS))
