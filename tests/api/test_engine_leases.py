"""An engine that is killed, frozen or cut off holds no deletion up, and uses no fine-tune without a lease.

The engine is the stand-in with the real plugin; `make test-vllm` does the same with a real vLLM.
"""

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
from tests.fakes import vllm
from tests.fakes.vllm_server import digest_of
from tests.support import bases, servers
from tests.support.fake_engines import FakeEngine
from tests.support.held_proxy import HeldProxy
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import Server, WithoutTorch, wait_until

from tunewarden.engine_protocol.codes import Code
from tunewarden.registry import members, replicas
from tunewarden.registry.members import Member, MemberState

LEASE_SECONDS = 2.0
FILES = bases.adapter("leased")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("leases") / "data"
    settings = {"engine_lease_seconds": LEASE_SECONDS}
    with servers.serving(data, settings=settings, kind=WithoutTorch) as found:
        yield found


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "engine.key"
    file.write_text(vllm.KEY)
    return file


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    found = FakeEngine(slots=4)
    yield found
    found.thaw()
    found.stop()


@pytest.fixture
def pushed(
    server: Server, engine: FakeEngine, key_file: Path, request: pytest.FixtureRequest
) -> Pushed:
    return _added(server, engine.url, key_file, request.node.name)


def _added(server: Server, url: str, key_file: Path, name: str) -> Pushed:
    found = Pushed(server, f"b{abs(hash(name)) % 10**9}")
    assert found.add_base(url, key_file) == ""
    return found


def _models(pushed: Pushed, directory: Path, *, count: int = 2) -> list[str]:
    """Import models and use them."""
    found = [pushed.imported(FILES.write(directory / str(n))) for n in range(count)]
    for model in found:
        assert pushed.said(model) == digest_of(FILES.weights)
    return found


def _member(pushed: Pushed) -> Member | None:
    database = pushed.server.app.database
    [replica] = replicas.of(database, pushed.base)
    return members.newest(database, replica.n)


def _says_again(pushed: Pushed, model: str) -> bool:
    with suppress(openai.APIStatusError):
        return pushed.said(model) == digest_of(FILES.weights)
    return False


def _runner(server: Server) -> int:
    for pid in servers.descendants(server.process.pid):
        with suppress(OSError):
            if b"tunewarden.server.runner" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise AssertionError("no runner")


@contextmanager
def _stream(pushed: Pushed, model: str) -> Iterator[openai.Stream[object]]:
    client = pushed.server.client(max_retries=0).chat.completions
    stream = client.create(model=model, messages=ASKED, max_tokens=100_000, stream=True)
    with stream:
        next(iter(stream))
        yield stream  # type: ignore[misc]  # of chunks


def test_a_deletion_is_answered_although_its_engine_was_killed(
    pushed: Pushed, engine: FakeEngine, tmp_path: Path
) -> None:
    model, other = _models(pushed, tmp_path)
    engine.stop()
    [found] = pushed.deleted(model)
    assert (found.engine, found.how) == (f"vllm:{pushed.base}", "lease_ended")
    with pytest.raises(openai.NotFoundError):
        pushed.said(model)
    member = _member(pushed)
    assert member is not None
    assert member.state is MemberState.ENDED
    [row] = json.loads(pushed.server.cli("replicas", "list", pushed.base, "--json").stdout)["data"]
    assert row["lease"]["state"] == "ended"
    assert "lapsed, since" in pushed.server.cli("doctor").stdout
    engine.start()
    wait_until(lambda: _says_again(pushed, other), "the engine joins again")
    [found] = pushed.deleted(other)
    assert found.how == "zeroed"


def test_a_frozen_engine_is_counted_out_and_sends_nothing_when_it_wakes(
    pushed: Pushed, engine: FakeEngine, tmp_path: Path
) -> None:
    model, kept = _models(pushed, tmp_path)
    with _stream(pushed, kept) as stream, _stream(pushed, model) as victim:
        engine.freeze()
        [found] = pushed.deleted(model)
        assert found.how == "lease_ended"
        with pytest.raises(openai.APIError) as cut:
            list(victim)
        assert cut.value.code == "model_deleted"
        engine.thaw()
        with pytest.raises(openai.APIError) as ended:
            list(stream)
        assert ended.value.code == Code.NO_LEASE
    wait_until(lambda: _says_again(pushed, kept), "the engine joins again")
    assert len(engine.loaded()) == 1


def test_a_renewal_that_is_held_up_extends_nothing(
    server: Server, engine: FakeEngine, key_file: Path, tmp_path: Path
) -> None:
    with HeldProxy(urlsplit(engine.url).port or 0) as proxy:
        pushed = _added(server, f"http://127.0.0.1:{proxy.port}/v1", key_file, "held")
        model, kept = _models(pushed, tmp_path)
        proxy.hold()
        [found] = pushed.deleted(model)
        assert found.how == "lease_ended"
        wait_until(lambda: not engine.loaded(), "it has dropped everything by itself")
        proxy.release()
        wait_until(lambda: _says_again(pushed, kept), "the engine joins again")
        with pytest.raises(openai.NotFoundError):
            pushed.said(model)


def test_a_killed_runner_costs_no_stream(
    pushed: Pushed, engine: FakeEngine, tmp_path: Path
) -> None:
    [model] = _models(pushed, tmp_path, count=1)
    with _stream(pushed, model) as stream:
        before, runner = _member(pushed), _runner(pushed.server)
        assert before is not None
        os.kill(runner, signal.SIGKILL)
        wait_until(
            lambda: (
                (now := _member(pushed)) is not None
                and (now.id != before.id or now.renewals > before.renewals + 4)
            ),
            "another runner renews",
        )
        now = _member(pushed)
        assert now is not None
        # Where the machine was too slow to start one in time, the lease ended, and the next test's are the rules.
        if now.id == before.id:
            assert next(iter(stream)) is not None
    assert pushed.deleted(model)[0].how == "zeroed"


def test_without_a_runner_fine_tunes_stop_and_bases_go_on(
    pushed: Pushed, engine: FakeEngine, tmp_path: Path
) -> None:
    model, other = _models(pushed, tmp_path)
    runner = _runner(pushed.server)
    os.kill(runner, signal.SIGSTOP)
    try:
        wait_until(lambda: not engine.loaded(), "the lease ends")
        assert pushed.said(pushed.base) == vllm.BASE
        # Its word is better than the end of its lease.
        assert pushed.deleted(model)[0].how in {"not_loaded", "lease_ended"}
    finally:
        with suppress(ProcessLookupError):  # the supervisor may have replaced it
            os.kill(runner, signal.SIGCONT)
    wait_until(lambda: _says_again(pushed, other), "the engine joins again")


def test_an_engine_that_restarts_is_used_again(
    pushed: Pushed, engine: FakeEngine, tmp_path: Path
) -> None:
    model, other = _models(pushed, tmp_path)
    engine.stop()
    engine.start()
    assert pushed.said(other) == digest_of(FILES.weights)
    assert pushed.deleted(model)[0].how in {"lease_ended", "not_loaded"}


def test_an_engine_behind_certificates(
    server: Server, key_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = server.cli("certificates", "issue", "127.0.0.1", "--out", str(tmp_path / "gpu"))
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.splitlines()) == 3
    with ExitStack() as stack:
        engine = FakeEngine(slots=2, certificates=tmp_path / "gpu")
        stack.callback(engine.stop)
        pushed = _added(server, engine.url, key_file, request.node.name)
        model, other = _models(pushed, tmp_path)
        member = _member(pushed)
        assert member is not None
        assert len(member.certificate) == 64
        assert not _opens(engine.url, tmp_path / "gpu")
        assert pushed.deleted(model)[0].how == "zeroed"
        engine.stop()
        assert pushed.deleted(other)[0].how == "lease_ended"
        engine.start()
    listed = json.loads(server.cli("certificates", "list", "--json").stdout)["data"]
    assert [one["id"] for one in listed] == ["ca", "gateway"]
    before = listed[1]["ends_at"]
    renewed = json.loads(server.cli("certificates", "renew", "--json").stdout)["data"]
    assert renewed[0]["ends_at"] >= before


def _opens(url: str, files: Path) -> bool:
    """Return whether an engine answers a client without a certificate."""
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    address = ("127.0.0.1", urlsplit(url).port)
    try:
        with (
            socket.create_connection(address) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as connected,
        ):
            connected.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            return bool(connected.recv(1))
    except (ssl.SSLError, OSError):
        return False
