"""Odd messages over real sockets: a server's answers are to the requests that h11 finds in them, and to no others."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.api.odd_messages import Generator, compare
from tests.support import servers

IS_LONG = "TUNEWARDEN_TORTURE" in os.environ
MESSAGES = 100_000 if IS_LONG else 2_000
CONTROL_MESSAGES = 1_000
SHOWN = 3


def _compare(address: tuple[str, int], key: str, messages: int, who: str) -> list[str]:
    seed = secrets.randbits(32)
    wrong: list[str] = []
    began = time.monotonic()
    sent, answered, count = asyncio.run(
        compare(address, Generator(seed, key), messages, wrong.append)
    )
    took = time.monotonic() - began
    print(f"seed {seed} http-framing {who} messages {sent} answers {answered}", end=" ")
    print(f"contradictions to h11 {count} in {took:.0f} s")
    return wrong


def test_odd_messages_are_answered_as_h11_frames_them(data: Path) -> None:
    with servers.serving(data, workers=1) as server:
        wrong = _compare(server.address, server.owner_key, MESSAGES, "tunewarden")
        assert not wrong, "\n".join(wrong[:SHOWN])
        assert "ERROR" not in server.log(), server.log()


def test_the_comparison_catches_uvicorn_as_it_comes() -> None:
    """The control: it takes the body of a request that offers an upgrade for a request (uvicorn#2722)."""
    with plain_uvicorn() as address:
        wrong = _compare(address, "sk-control", CONTROL_MESSAGES, "plain-uvicorn")
    assert any("upgrade" in one.lower() and "answers to" in one for one in wrong), wrong[:SHOWN]


@contextmanager
def plain_uvicorn() -> Iterator[tuple[str, int]]:
    """Run uvicorn as it comes for a block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.plain_uvicorn", str(listening.fileno())],
            pass_fds=(listening.fileno(),),
        )
        try:
            host, port = listening.getsockname()
            with socket.create_connection((host, port), timeout=servers.START_SECONDS) as first:
                first.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert first.recv(12) == b"HTTP/1.1 200"
            yield host, port
        finally:
            process.kill()
            process.wait()
