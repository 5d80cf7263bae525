"""How many bytecode instructions and calls of C functions a request takes in a worker: the same on every machine.

Only of CPython's own versions: each compiles to other instructions.
"""

import contextlib
import os
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.open_loop import chat
from benchmarks.peers.counted_worker import COUNTS
from tests.support import lone_worker, servers

WARM, ASKED = 30, 40
CHUNKS, CHUNK_SECONDS = 8, 0.01
STREAMS_WARM, STREAMS = 4, 10


class CountedWorker(lone_worker.LoneWorker):
    """A worker that counts."""

    program = "benchmarks.peers.counted_worker"


def counts(here: Path) -> dict[str, float]:
    """Return the medians: of a whole answer, and of a stream's chunk (all of a stream, by its chunks)."""
    file = here / "counts"
    file.write_bytes(bytes(16))
    os.environ[COUNTS] = str(file)
    data = here / "counted"
    servers.prepare_local_base(data)
    with _engine(data / "run" / "engine.sock"):
        server = CountedWorker(data)
        try:
            key, model = server.owner_key, server.make_model().id
            whole = chat(model, key, "How do I reset my password?", due_at=0).data
            how = {"chunks": CHUNKS, "pause": CHUNK_SECONDS}
            stream = chat(model, key, "Tell me more.", due_at=0, stream=True, **how).data
            answers = _measured(server, file, whole, b"}", (WARM, ASKED))
            streams = _measured(server, file, stream, b"0\r\n\r\n", (STREAMS_WARM, STREAMS))
        finally:
            server.kill()
    found = {}
    for at, what in enumerate(("instructions", "calls of C")):
        found[f"{what} of a whole answer"] = statistics.median(one[at] for one in answers)
        each = statistics.median(one[at] for one in streams) / CHUNKS
        found[f"{what} of a stream, by its chunks"] = each
    return found


def _measured(
    server: CountedWorker, file: Path, asked: bytes, end: bytes, times: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return what each request took, one after the other on one connection; `times` to warm up, and counted."""
    found, (warm, count) = [], times
    with server.connect() as connection:
        for number in range(warm + count):
            before = _read(file)
            connection.sendall(asked)
            answer = b""
            while not answer.endswith(end) or b"\r\n\r\n" not in answer:
                piece = connection.recv(1 << 16)
                assert piece, f"the answer broke off: {answer[:200]!r}"
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
            after = _read(file)
            if number >= warm:
                found.append((after[0] - before[0], after[1] - before[1]))
    return found


def _read(file: Path) -> tuple[int, int]:
    one, other = struct.unpack("QQ", file.read_bytes())
    return one, other


@contextlib.contextmanager
def _engine(socket: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.echo_engine", "--socket", str(socket)]
    with subprocess.Popen([*command, "--parent", str(os.getpid())]) as running:
        try:
            servers.wait_until(socket.exists, "the engine's stand-in listens")
            yield
        finally:
            running.kill()
