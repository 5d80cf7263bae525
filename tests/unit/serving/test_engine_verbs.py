"""Eviction (D5) from an engine that does not even take connections any more."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tunewarden import processes
from tunewarden.errors import Error
from tunewarden.serving.engine import Eviction
from tunewarden.serving.engine_verbs import EngineVerbs

HANGS = """
import socket, sys, time
from pathlib import Path
from tunewarden import processes
path = Path(sys.argv[1])
path.with_suffix(".pid").write_bytes(processes.identity())
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(str(path))
listener.listen(0)
print("listens", flush=True)
time.sleep(1000)
"""


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
    evicted = EngineVerbs(path, tmp_path / "scratch").evict("m_1", within_seconds=0.2)
    assert (evicted.how, evicted.zeroed) == (Eviction.RESTARTED, False)
    assert hanging.wait(5) == -9


def test_nothing_is_killed_on_the_word_of_an_old_note(
    path: Path, hanging: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    path.with_suffix(".pid").unlink()
    with pytest.raises(Error, match="not let go"):
        EngineVerbs(path, tmp_path / "scratch").evict("m_1", within_seconds=0.2)
    assert hanging.poll() is None


def test_a_process_is_killed_only_by_its_own_identity(hanging: subprocess.Popen[bytes]) -> None:
    other = b'{"pid": %d, "start": "1"}' % hanging.pid
    assert processes.kill(other, within_seconds=1), "that process has ended long ago"
    assert hanging.poll() is None
    assert not processes.kill(processes.identity(), within_seconds=1), "not itself"
