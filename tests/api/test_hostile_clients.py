"""What somebody without a key can take of a worker: memory, time and connections, each bounded for a connection."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import Server, wait_until

IS_LONG = "TUNEWARDEN_TORTURE" in os.environ
CONNECTIONS = 100
PER_CONNECTION_MAX = 256 * 1024
CLIENT_SECONDS = 2.0
PER_ADDRESS_MAX = 20
LARGE = 400_000


@contextmanager
def _worker(data: Path, **settings: object) -> Iterator[tuple[Server, int]]:
    """A server with one worker, and that worker's process."""
    with servers.serving(data, workers=1, settings=settings) as server:
        found = [
            pid
            for pid in server.processes()
            if b"tunewarden.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(found) == 1
        yield server, found[0]


def _memory(pid: int) -> int:
    """Return a process's own memory in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(
        int(line.split()[1]) * 1024
        for line in lines
        if line.startswith(("Private_Dirty:", "Private_Clean:"))
    )


def _send(connection: socket.socket, data: bytes) -> None:
    """Send as much as is taken within a moment."""
    connection.settimeout(0.03)
    with contextlib.suppress(TimeoutError, ConnectionError):
        connection.sendall(data)


BOMBS = {
    "pipelined": b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" * 10_000,
    "pipelined, answered largely": b"GET /log/tile/0/000 HTTP/1.1\r\nhost: a\r\n\r\n" * 10_000,
    "pipelined, refused": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n" * 5_000,
    "empty headers": b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a:\r\n" * 65_000,
    "headers": b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 440) for n in range(126)),
    "headers that were answered": (
        b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 400) for n in range(126)) + b"\r\n"
    ),
    "an endless header": b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 1_000_000,
    "trailers": (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 100_000
    ),
    "a body": b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n" + b"y" * 1_000_000,
}  # fmt: skip

OFTEN = ("pipelined, refused", "empty headers", "an endless header")


@pytest.mark.parametrize("bomb", BOMBS if IS_LONG else OFTEN)
def test_a_hostile_connection_holds_a_bounded_part_of_the_memory(data: Path, bomb: str) -> None:
    # It waits so long that what is measured is held. A new one each time: allocators keep what was freed.
    with _worker(data, client_seconds=60) as (server, pid):
        with server.connect() as connection:  # What is allocated once is no connection's.
            _send(connection, BOMBS[bomb])
        before = _memory(pid)
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                _send(stack.enter_context(_small_buffers(server)), BOMBS[bomb])
            assert server.get("/healthz").status == 200  # It has read what came before.
            held = (_memory(pid) - before) / CONNECTIONS
    print(f"{bomb}: {held / 1024:.0f} KiB for each of {CONNECTIONS} connections")
    assert held < PER_CONNECTION_MAX


def test_who_reads_nothing_is_disconnected_however_the_answer_came(data: Path) -> None:
    with _worker(data, client_seconds=CLIENT_SECONDS) as (server, pid):
        body, content_type = _form(b"x" * 20_000_000)
        headers = {"content-type": content_type}
        made = server.request("POST", "/v1/files", key=server.owner_key, headers=headers, body=body)
        key = f"authorization: Bearer {server.owner_key}\r\n".encode()
        download = f"GET /v1/files/{made.json['id']}/content HTTP/1.1\r\nhost: a\r\n".encode()
        small = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n"
        before = _descriptors(pid)
        with ExitStack() as stack:
            for sent in (download + key + b"\r\n", (small + key + b"\r\n") * 20_000):
                for _ in range(5):
                    connection = stack.enter_context(_small_buffers(server))
                    _send(connection, sent)
            wait_until(lambda: _descriptors(pid) >= before + 5, "they are connected", 5)
            wait_until(lambda: _descriptors(pid) <= before, "they were disconnected", 30)
        # Who reads slowly, but reads, gets all.
        with _small_buffers(server) as connection:
            connection.sendall(download + key + b"connection: close\r\n\r\n")
            got = 0
            for _ in range(6):
                time.sleep(CLIENT_SECONDS / 2)
                got += len(connection.recv(1_000_000))
            while piece := connection.recv(1_000_000):
                got += len(piece)
        assert got > 20_000_000


def test_unread_downloads_cost_no_processor_time(data: Path) -> None:
    with _worker(data, client_seconds=60) as (server, pid):
        used = _used_by_unread_downloads(server, pid)
    assert used < 0.1


def _used_by_unread_downloads(server: Server, pid: int) -> float:
    """Return how much of a processor the worker uses while downloads wait for their clients."""
    body, content_type = _form(b"x" * LARGE)
    made = server.request(
        "POST", "/v1/files", key=server.owner_key, headers={"content-type": content_type}, body=body
    )
    request = (
        f"GET /v1/files/{made.json['id']}/content HTTP/1.1\r\nhost: a\r\n"
        f"authorization: Bearer {server.owner_key}\r\n\r\n"
    ).encode()
    unread = 400 if IS_LONG else 100
    with ExitStack() as stack:
        for _ in range(unread):
            stack.enter_context(_small_buffers(server)).sendall(request)
        time.sleep(6 if IS_LONG else 2)  # Until all have begun, and are looked at seldom.
        used, seconds = _processor_seconds(pid), 4
        time.sleep(seconds)
        used = (_processor_seconds(pid) - used) / seconds
    print(f"{unread} unread downloads take {used:.1%} of a processor")
    return used


def test_one_address_has_a_bounded_number_of_connections_unless_it_is_trusted(data: Path) -> None:
    settings = {"connections_per_address_max": PER_ADDRESS_MAX}
    with _worker(data, trusted_proxies="192.0.2.1, 10.0.0.0/8", **settings) as (server, _):
        with ExitStack() as stack:
            held = [stack.enter_context(server.connect()) for _ in range(PER_ADDRESS_MAX)]
            with server.connect() as one_more:
                answer = one_more.recv(65536)
                assert answer.startswith(b"HTTP/1.1 503")
                assert b"too_many_connections" in answer
                assert one_more.recv(10) == b""
            held[0].sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
            assert held[0].recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: server.get("/healthz").status == 200, "there is room again")


def test_loopback_is_trusted_unless_it_is_said_otherwise(data: Path) -> None:
    settings = {"connections_per_address_max": PER_ADDRESS_MAX}
    with _worker(data, **settings) as (server, _), ExitStack() as stack:
        for _ in range(PER_ADDRESS_MAX * 2):
            stack.enter_context(server.connect())
        assert server.get("/healthz").status == 200


def _small_buffers(server: Server) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server.address)
    connection.settimeout(30)
    return connection


def _form(content: bytes) -> tuple[bytes, str]:
    parts = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--x\r\n'
        b'content-disposition: form-data; name="file"; filename="f"\r\n\r\n%b\r\n--x--\r\n'
    )
    return parts % content, "multipart/form-data; boundary=x"


def _descriptors(pid: int) -> int:
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(link.readlink()).startswith("socket:")
    return found


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
