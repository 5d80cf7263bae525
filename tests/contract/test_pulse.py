"""A process that is only busy is not killed for that; one that is stopped is, and as soon as before. I14."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.servers import is_alive

from tunewarden.clock import SystemClock
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.engines.port import Eviction
from tunewarden.serving.fence import Ending
from tunewarden.serving.kernel_locks import KernelLockFence

BOUND_SECONDS = 0.5
ALIVE_SECONDS = 60.0
# What a worker's loop does while a deletion waits. `sorted` holds the interpreter's lock in one call, as
# decoding a long JSON body does.
HOLDS = {
    "waits": "time.sleep(3)",
    "computes": "until = time.monotonic() + 3\nwhile time.monotonic() < until: pass",
    "computes in one call": "sorted(random.choices(range(10**9), k=2_000_000))",
}
WORKER = """
import random, sys, time
from pathlib import Path
from tunewarden.clock import SystemClock
from tunewarden.serving.kernel_locks import KernelLockFence
fence = KernelLockFence(Path(sys.argv[1]), SystemClock())
fence.join()
fence.begin(1)
print("begun", flush=True)
exec(sys.argv[2])
fence.end(1)
print("ended", flush=True)
time.sleep(1000)
"""
ENGINE = """
import socket, sys, time
from pathlib import Path
import msgspec
from tunewarden import pulse
from tunewarden.engine_protocol.messages import VERSION, EvictedAdapter, EvictionAnswer
path = Path(sys.argv[1])
if sys.argv[3] == "answers":
    pulse.answer(path.with_suffix(pulse.SUFFIX))
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(str(path))
listener.listen()
print("begun", flush=True)
client, _ = listener.accept()
client.recv(65536)
exec(sys.argv[2])
seen = EvictedAdapter("m_1", was_loaded=True, aborted=3, residue=0.0)
body = msgspec.json.encode(EvictionAnswer(VERSION, "one", [seen]))
client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%b" % (len(body), body))
time.sleep(1000)
"""


@contextlib.contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield process
        finally:
            process.kill()


def fence_of(directory: Path, alive_seconds: float) -> list[Ending]:
    fence = KernelLockFence(directory, SystemClock(), alive_seconds=alive_seconds)
    return [one.how for one in fence.fence(1, within_seconds=BOUND_SECONDS)]


@pytest.mark.long
@pytest.mark.parametrize("holds", HOLDS)
def test_a_busy_worker_lets_go_by_itself(tmp_path: Path, holds: str) -> None:
    with running(WORKER, str(tmp_path), HOLDS[holds]) as worker:
        assert fence_of(tmp_path, ALIVE_SECONDS) == [Ending.RELEASED]
        assert is_alive(worker.pid)


def test_control_without_the_longer_bound_a_busy_worker_is_killed(tmp_path: Path) -> None:
    with running(WORKER, str(tmp_path), HOLDS["waits"]) as worker:
        assert fence_of(tmp_path, 0.0) == [Ending.KILLED]
        assert worker.wait(5) == -signal.SIGKILL


def test_a_stopped_worker_is_killed_at_the_shorter_bound(tmp_path: Path) -> None:
    with running(WORKER, str(tmp_path), "time.sleep(1000)") as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert fence_of(tmp_path, ALIVE_SECONDS) == [Ending.KILLED]
        assert time.monotonic() - began < ALIVE_SECONDS / 2


@pytest.mark.long
def test_a_worker_that_never_lets_go_is_killed_at_the_longer_bound(tmp_path: Path) -> None:
    with running(WORKER, str(tmp_path), "time.sleep(1000)"):
        began = time.monotonic()
        assert fence_of(tmp_path, 3.0) == [Ending.KILLED]
        assert time.monotonic() - began > 3.0


def test_an_engine_that_is_busy_evicts_late(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with running(ENGINE, str(path), "time.sleep(2)", "answers"):
        verbs = EngineVerbs(path, tmp_path, SystemClock(), alive_seconds=ALIVE_SECONDS)
        evicted = verbs.evict("m_1", loaded_by=None, within_seconds=BOUND_SECONDS)
        assert (evicted.how, evicted.aborted) == (Eviction.ZEROED, 3)


@pytest.mark.parametrize(("answers", "is_stopped"), [("is silent", False), ("answers", True)])
def test_an_engine_that_hangs_is_killed(tmp_path: Path, answers: str, is_stopped: bool) -> None:
    path = tmp_path / "engine.sock"
    with running(ENGINE, str(path), "time.sleep(1000)", answers) as engine:
        if is_stopped:
            os.kill(engine.pid, signal.SIGSTOP)
        began = time.monotonic()
        verbs = EngineVerbs(path, tmp_path, SystemClock(), alive_seconds=ALIVE_SECONDS)
        assert (
            verbs.evict("m_1", loaded_by=None, within_seconds=BOUND_SECONDS).how
            is Eviction.RESTARTED
        )
        assert time.monotonic() - began < ALIVE_SECONDS / 2
        assert engine.wait(5) == -signal.SIGKILL
