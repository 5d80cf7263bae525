"""Files while they come and go: slow, broken off, cut, killed; what memory they take; no plain byte on a disk."""

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import servers, uploading
from tests.support.servers import Server, wait_until
from tests.support.uploading import Field, begin, form, holding, incoming, post, settle, state

from tunewarden.api.upload_bridge import SHARE_MAX
from tunewarden.registry.artifacts import State

FILES = "/v1/files"
PURPOSE = Field("purpose", b"user_data")
MIB = 1024 * 1024
# Several times what a worker may take for it.
LARGE_MIB = 120


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("streams") / "data"
    with servers.serving(data, workers=1) as server:
        yield server


@pytest.fixture
def settled(running: Server) -> Server:
    settle(running)
    return running


def _body(size: int) -> bytes:
    return form(PURPOSE, Field("file", bytes(size), "a.bin"))


def _make(server: Server, content: bytes) -> str:
    return server.client().files.create(file=("a.bin", content), purpose="user_data").id


def _internal_id(server: Server, file_id: str) -> str:
    row = server.app.database.peek("SELECT internal_id FROM artifacts WHERE id = :id", id=file_id)
    assert row is not None
    return str(row[0])


# On their way in


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(settled: Server) -> None:
    before = state(settled)
    body = _body(3 * MIB)
    for sent in (10, 300, MIB, len(body) - 1):
        connection = begin(settled, FILES, body[:sent], length=len(body))
        if sent > 300:
            wait_until(lambda: state(settled) != before, "control: something has begun")
        connection.close()
        wait_until(lambda: state(settled) == before, f"nothing is left after {sent} bytes")
    assert "Traceback" not in settled.log(), settled.log()


def test_a_slow_client_is_waited_for(settled: Server) -> None:
    body = _body(200_000)
    connection = begin(settled, FILES, b"", length=len(body))
    for at in range(0, len(body), 10_000):
        connection.sendall(body[at : at + 10_000])
        time.sleep(0.01)
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    connection.close()


def test_more_uploads_than_there_are_turns_are_all_taken_in_the_end(settled: Server) -> None:
    body = _body(100_000)
    stalled = [begin(settled, FILES, body[:50_000], length=len(body)) for _ in range(40)]
    drafts = "SELECT COUNT(*) FROM drafts"
    wait_until(lambda: settled.app.database.peek(drafts) == (SHARE_MAX,), "all turns are taken")
    assert settled.get("/v1/models", key=settled.owner_key).status == 200, "others are served"
    for connection in stalled:
        connection.sendall(body[50_000:])
    for connection in stalled:
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        connection.close()


def test_a_large_file_takes_little_memory_and_comes_back_as_it_was(running: Server) -> None:
    (worker,) = _workers(running)
    _make(running, b"the first one loads code")
    block = os.urandom(MIB)
    before = _memory(worker, "VmRSS")
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak is counted anew
    head = form(PURPOSE, Field("file", b"", "a.bin")).partition(
        b"\r\n--" + uploading.BOUNDARY.encode() + b"--"
    )[0]
    tail = f"\r\n--{uploading.BOUNDARY}--\r\n".encode()
    size = LARGE_MIB * MIB
    connection = begin(running, FILES, head, length=len(head) + size + len(tail))
    for _ in range(LARGE_MIB):
        connection.sendall(block)
    connection.sendall(tail)
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    connection.close()
    client = running.client()
    (file, *_) = client.files.list(limit=1).data
    assert file.bytes == size
    with client.files.with_streaming_response.content(file.id) as answer:
        assert answer.headers["content-length"] == str(size)
        rest = b""
        for piece in answer.iter_bytes(MIB):
            rest += piece
            if len(rest) >= MIB:
                assert rest[:MIB] == block
                rest = rest[MIB:]
    assert rest == b""
    grown = _memory(worker, "VmHWM") - before
    print(f"{LARGE_MIB} MiB in and out: {grown / MIB:+.1f} MiB at most")
    assert grown < 40 * MIB
    client.files.delete(file.id)


def test_a_server_that_is_stopped_meanwhile_stops_and_nothing_is_left(data: Path) -> None:
    with servers.serving(data) as server:
        before = state(server)
        connection = begin(server, FILES, _body(MIB)[: MIB // 2], length=len(_body(MIB)))
        wait_until(lambda: state(server) != before, "control: something has begun")
        server.stop()
        connection.close()
        server.start_again()
        wait_until(lambda: state(server) == before, "nothing is left")


def test_a_server_that_is_killed_meanwhile_leaves_nothing_after_its_next_start(data: Path) -> None:
    with servers.serving(data) as server:
        before = state(server)
        kept = server.post(
            "/v1/uploads",
            {"bytes": 6, "filename": "six", "mime_type": "text/plain", "purpose": "user_data"},
        ).json["id"]
        part = post(server, f"/v1/uploads/{kept}/parts", Field("data", b"abcdef", "x")).json["id"]
        body = form(Field("data", bytes(6 * MIB), "x"))
        connections = [
            begin(server, FILES, _body(9 * MIB)[: 6 * MIB], length=9 * MIB),
            begin(server, f"/v1/uploads/{kept}/parts", body[: 5 * MIB], length=len(body)),
        ]
        wait_until(lambda: incoming(server) > 5 * MIB, "both are being sealed")
        family = server.processes()
        server.kill()
        wait_until(lambda: not any(map(servers.is_alive, family)), "all have ended")
        for connection in connections:
            connection.close()
        server.start_again()
        done = server.post(f"/v1/uploads/{kept}/complete", {"part_ids": [part]})
        assert done.status == 200, "what was stored before is still there"
        file = done.json["file"]
        assert isinstance(file, dict)
        assert server.client().files.content(file["id"]).read() == b"abcdef"
        server.client().files.delete(file["id"])
        settle(server)
        after = state(server)
        assert (after["blobs"], after["keys"]) == (before["blobs"], before["keys"])
        assert server.app.database.peek("SELECT COUNT(*) FROM drafts") == (0,)


# I16


def test_content_is_nowhere_on_a_disk_in_the_plain(data: Path) -> None:
    canary = f"CANARY-{os.urandom(8).hex()}-".encode()
    line = b'{"messages":[{"role":"user","content":"' + canary * 100 + b'"}]}\n'
    content = line * 1000
    places = (data, data.parent / f"{data.name}.tmp")
    with servers.serving(data) as server:
        control = data / "control"
        control.write_bytes(line)
        assert _found(server, places, canary) == [control], "control: the scan finds what is there"
        control.unlink()
        body = form(PURPOSE, Field("file", content, "a.jsonl"))
        connection = begin(server, FILES, body[:-100], length=len(body))
        wait_until(lambda: incoming(server) > len(content) // 2, "it is being sealed")
        assert _found(server, places, canary) == [], "while it comes"
        connection.sendall(body[-100:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        connection.close()
        client = server.client()
        upload = client.uploads.upload_file_chunked(
            file=content,
            filename="b.jsonl",
            bytes=len(content),
            mime_type="text/jsonl",
            purpose="fine-tune",
            part_size=len(content) // 3,
        )
        assert upload.file is not None
        assert _found(server, places, canary) == [], "when it is stored"
        assert client.files.content(upload.file.id).read() == content
        assert _found(server, places, canary) == [], "when it was read"
        keys = server.app.keyring
        for file in list(client.files.list()):
            client.files.delete(file.id)
        assert not any(keys.key_ids(shard) for shard in keys.shards())
        settle(server)
        assert server.app.blobs.names("") == []
        assert _found(server, places, canary) == [], "when it is deleted"


def _found(server: Server, places: tuple[Path, ...], canary: bytes) -> list[Path]:
    return [path for place in (*places, server.scratch) for path in holding(place, canary)]


# On their way out


def test_a_download_is_cut_when_its_file_is_deleted(settled: Server) -> None:
    size = 40 * MIB
    file_id = _make(settled, bytes(size))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.connect(settled.address)
    connection.sendall(
        f"GET {FILES}/{file_id}/content HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {settled.owner_key}\r\n\r\n".encode()
    )
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    began = time.monotonic()
    settled.client(max_retries=0).files.delete(file_id)
    print(f"deleted within {time.monotonic() - began:.3f} s beside a client that does not read")
    received = 0
    try:
        while data := connection.recv(MIB):
            received += len(data)
    except ConnectionResetError:
        pass
    connection.close()
    assert received < size, "what was on its way was dropped"
    assert settled.get(f"{FILES}/{file_id}/content", key=settled.owner_key).status == 404
    assert "Traceback" not in settled.log(), settled.log()


def test_a_client_that_stops_reading_and_goes_away_frees_the_file(settled: Server) -> None:
    file_id = _make(settled, bytes(40 * MIB))
    connection = settled.connect()
    connection.sendall(
        f"GET {FILES}/{file_id}/content HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {settled.owner_key}\r\n\r\n".encode()
    )
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    connection.close()
    wait_until(lambda: _open_blobs(settled) == 0, "nobody reads it any more")
    assert settled.client().files.delete(file_id).deleted
    assert "Traceback" not in settled.log(), settled.log()


def test_a_damaged_file_is_never_passed_for_the_file(settled: Server) -> None:
    small, large = _make(settled, b"small"), _make(settled, os.urandom(3 * MIB))
    for file_id in (small, large):
        (name,) = settled.app.blobs.names(f"{_internal_id(settled, file_id)}/")
        path = settled.data / "blobs" / name
        stored = bytearray(path.read_bytes())
        stored[-5] ^= 1
        path.write_bytes(stored)
    reply = settled.get(f"{FILES}/{small}/content", key=settled.owner_key)
    assert (reply.status, reply.error["code"]) == (503, "stored_bytes_damaged")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        settled.get(f"{FILES}/{large}/content", key=settled.owner_key)
    for file_id in (small, large):
        assert settled.client().files.delete(file_id).deleted


def test_many_downloads_and_a_delete_of_another_do_not_disturb_each_other(settled: Server) -> None:
    content = os.urandom(5 * MIB)
    kept, gone = _make(settled, content), _make(settled, content)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(settled.client().files.content(kept).read()))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    assert settled.client().files.delete(gone).deleted
    for thread in threads:
        thread.join()
    assert found == [content] * 6
    row = settled.app.database.peek("SELECT state FROM artifacts WHERE id = :id", id=gone)
    assert row == (State.DELETED.value,)


def _workers(server: Server) -> list[int]:
    return [
        pid
        for pid in server.processes()
        if b"tunewarden.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def _memory(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def _open_blobs(server: Server) -> int:
    """How many files the workers have open below blobs/."""
    return sum(
        f"{server.data}/blobs/m_" in str(link.readlink())
        for pid in _workers(server)
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink()
    )
