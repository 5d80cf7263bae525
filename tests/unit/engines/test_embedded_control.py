"""Eviction (D5) from engines that hang, are gone, or say what is no proof."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from tunewarden import processes
from tunewarden.clock import SystemClock
from tunewarden.engine_protocol.messages import (
    VERSION,
    EvictedAdapter,
    EvictionAnswer,
    LoadedBase,
    State,
)
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.engines.port import Eviction, ToEvict
from tunewarden.errors import Error, Kind

HANGS = """
import socket, sys, time
from pathlib import Path
from tunewarden import processes
from tunewarden.clock import SystemClock
path = Path(sys.argv[1])
path.with_suffix(".pid").write_bytes(processes.identity())
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(str(path))
listener.listen(0)
print("listens", flush=True)
time.sleep(1000)
"""

ANSWERS = """
import socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
status, body = int(sys.argv[2]), bytes.fromhex(sys.argv[3])
while True:
    client, _ = listener.accept()
    client.recv(65536)
    client.sendall(b"HTTP/1.1 %d -\\r\\ncontent-length: %d\\r\\n\\r\\n%b" % (status, len(body), body))
"""
SEEN = EvictedAdapter("m_1", was_loaded=True, aborted=3, residue=0.0)
EVICTED = msgspec.json.encode(EvictionAnswer(VERSION, "one", [SEEN]))
STATE = msgspec.json.encode(State(VERSION, 7, "one", [LoadedBase("base", ["m_1"])], []))


def _changed(body: bytes, **changes: object) -> bytes:
    """A JSON object with other fields; those that are given as None are left out."""
    fields = msgspec.json.decode(body) | changes
    return msgspec.json.encode({name: one for name, one in fields.items() if one is not None})


# What is no proof that m_1 is gone: each with its status.
NO_PROOF = {
    "an engine before versions": (200, b'{"name":"m_1","incarnation":"one","was_loaded":true,"aborted":0,"residue":0.0}'),
    "an engine without the route": (404, b'{"error":{"message":"Invalid URL","code":null}}'),
    "an older engine, same shape": (200, _changed(EVICTED, version=None)),
    "a newer engine, same shape": (200, _changed(EVICTED, version=VERSION + 1)),
    "a newer engine, another shape": (200, b'{"version":2,"evicted":{"m_1":"gone"}}'),
    "a failed engine": (500, EVICTED),
    "another model": (200, _changed(EVICTED, evicted=[{"name": "m_2", "was_loaded": True, "aborted": 0, "residue": 0.0}])),
    "no model": (200, _changed(EVICTED, evicted=[])),
    "two models": (200, _changed(EVICTED, evicted=[SEEN, SEEN])),
    "weights left": (200, _changed(EVICTED, evicted=[msgspec.structs.replace(SEEN, residue=0.5)])),
    "nothing": (200, b""),
    "no text": (200, b'{"version":1,"incarnation":"\xff","evicted":[]}'),
}  # fmt: skip


@contextmanager
def answering(path: Path, status: int, body: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """An engine that says the same to everything."""
    command = [sys.executable, "-c", ANSWERS, str(path), str(status), body.hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as engine:
        try:
            assert engine.stdout is not None
            engine.stdout.readline()
            yield engine
        finally:
            engine.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


@pytest.fixture
def hanging(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An engine that takes no connection, with its queue of them full."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", HANGS, str(path)], stdout=subprocess.PIPE
        ) as engine,
        ExitStack() as connections,
    ):
        assert engine.stdout is not None
        engine.stdout.readline()
        while True:
            client = connections.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        yield engine
        engine.kill()


def test_an_engine_with_a_full_queue_is_killed(
    path: Path, hanging: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    evicted = EngineVerbs(path, tmp_path / "scratch", SystemClock()).evict(
        "m_1", loaded_by=None, within_seconds=0.2
    )
    assert evicted.how is Eviction.RESTARTED
    assert hanging.wait(5) == -9


def test_nothing_is_killed_on_the_word_of_an_old_note(
    path: Path, hanging: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    path.with_suffix(".pid").unlink()
    with pytest.raises(Error, match="not evicted"):
        EngineVerbs(path, tmp_path / "scratch", SystemClock()).evict(
            "m_1", loaded_by=None, within_seconds=0.2
        )
    assert hanging.poll() is None


def test_a_process_is_killed_only_by_its_own_identity(hanging: subprocess.Popen[bytes]) -> None:
    other = b'{"pid": %d, "start": "1"}' % hanging.pid
    assert processes.kill(other, within_seconds=1), "that process has ended long ago"
    assert hanging.poll() is None
    assert not processes.kill(processes.identity(), within_seconds=1), "not itself"


@pytest.mark.parametrize(
    ("loaded_by", "how"),
    [(None, Eviction.NOT_LOADED), ("an engine that has ended", Eviction.RESTARTED)],
)
def test_without_an_engine_it_counts_whether_one_had_the_model(
    path: Path, tmp_path: Path, loaded_by: str | None, how: Eviction
) -> None:
    (tmp_path / "scratch").mkdir()
    verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
    assert verbs.evict("m_1", loaded_by=loaded_by, within_seconds=0.2).how is how


def test_an_engine_that_says_what_it_saw_lives_on(path: Path, tmp_path: Path) -> None:
    with answering(path, 200, EVICTED) as engine:
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        evicted = verbs.evict("m_1", loaded_by="one", within_seconds=5)
        assert (evicted.how, evicted.aborted) == (Eviction.ZEROED, 3)
        assert engine.poll() is None


@pytest.mark.parametrize(
    ("loaded_by", "how"),
    [(None, Eviction.NOT_LOADED), ("one", Eviction.NOT_LOADED), ("two", Eviction.RESTARTED)],
)
def test_an_engine_without_the_model_counts_for_itself(
    path: Path, tmp_path: Path, loaded_by: str | None, how: Eviction
) -> None:
    unseen = msgspec.structs.replace(SEEN, was_loaded=False, aborted=0)
    with answering(path, 200, _changed(EVICTED, evicted=[unseen])):
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        assert verbs.evict("m_1", loaded_by=loaded_by, within_seconds=5).how is how


@pytest.mark.parametrize("case", NO_PROOF)
def test_an_engine_that_gives_no_proof_is_killed(path: Path, tmp_path: Path, case: str) -> None:
    with answering(path, *NO_PROOF[case]) as engine:
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        evicted = verbs.evict("m_1", loaded_by=None, within_seconds=5)
        assert (evicted.how, evicted.aborted) == (Eviction.RESTARTED, 0)
        assert engine.wait(5) == -9


MANY = [ToEvict("m_1", "one"), ToEvict("m_2", None), ToEvict("m_3", "an engine that has ended")]
ALL_SEEN = [
    SEEN,
    *(EvictedAdapter(name, was_loaded=False, aborted=0, residue=0.0) for name in ("m_2", "m_3")),
]


def test_several_are_evicted_by_one_request_and_each_by_what_was_seen_of_it(
    path: Path, tmp_path: Path
) -> None:
    with answering(path, 200, _changed(EVICTED, evicted=ALL_SEEN)) as engine:
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        evicted = verbs.evict_many(MANY, within_seconds=5)
        assert [(one.how, one.aborted) for one in evicted] == [
            (Eviction.ZEROED, 3),
            (Eviction.NOT_LOADED, 0),
            (Eviction.RESTARTED, 0),
        ]
        assert engine.poll() is None


@pytest.mark.parametrize(
    "seen",
    [
        ALL_SEEN[:2],
        [*ALL_SEEN[:2], msgspec.structs.replace(ALL_SEEN[2], residue=0.5)],
        [ALL_SEEN[1], ALL_SEEN[0], ALL_SEEN[2]],
    ],
    ids=["one is missing", "one has weights left", "another order"],
)
def test_without_proof_for_one_the_engine_is_killed_for_all(
    path: Path, tmp_path: Path, seen: list[EvictedAdapter]
) -> None:
    with answering(path, 200, _changed(EVICTED, evicted=seen)) as engine:
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        evicted = verbs.evict_many(MANY, within_seconds=5)
        assert [(one.how, one.aborted) for one in evicted] == [(Eviction.RESTARTED, 0)] * 3
        assert engine.wait(5) == -9


def test_an_engine_of_this_version_says_what_it_has(path: Path, tmp_path: Path) -> None:
    with answering(path, 200, STATE):
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        assert (verbs.bases(), verbs.models()) == ({"base"}, ["m_1"])


@pytest.mark.parametrize("version", [None, VERSION - 1, VERSION + 1])
def test_an_engine_of_another_version_is_refused_with_what_to_do(
    path: Path, tmp_path: Path, version: int | None
) -> None:
    with answering(path, 200, _changed(STATE, version=version)):
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        for ask in (verbs.bases, verbs.models):
            with pytest.raises(
                Error, match="Install the same release of Tunewarden for both"
            ) as caught:
                ask()
            assert caught.value.kind is Kind.MISCONFIGURED
            assert f"version {version or 0} of" in caught.value.message


def test_a_refusal_of_a_base_is_passed_on(path: Path, tmp_path: Path) -> None:
    refused = b'{"error":{"message":"The base cannot be served.","code":"invalid_base"}}'
    with answering(path, 400, refused):
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        with pytest.raises(Error, match=r"cannot be served\.") as caught:
            verbs.load_base("base", "/nowhere")
        assert (caught.value.kind, caught.value.code) == (Kind.INVALID, "invalid_base")


def test_what_is_no_state_is_a_value_error(path: Path, tmp_path: Path) -> None:
    with answering(path, 200, b"<html>"):
        verbs = EngineVerbs(path, tmp_path / "scratch", SystemClock())
        with pytest.raises(ValueError, match="not a message"):
            verbs.bases()
