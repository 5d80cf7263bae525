"""Programs that run on one processor of the machine, on ports of their own."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.peers import install
from tests.support import servers


@contextlib.contextmanager
def running(
    command: list[str], cpu: int, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a program on one processor for a block; it ends with the block. Gives its process id."""
    with (
        log.open("ab") as out,
        pinned(cpu),
        subprocess.Popen(command, stdout=out, stderr=out, env=settings, cwd=install.ROOT) as begun,
    ):
        try:
            yield begun.pid
        finally:
            family = servers.descendants(begun.pid)
            begun.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                begun.wait(5)
            begun.kill()
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """What is started in the block runs on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether something answers on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
