"""A key that is revoked: its next request is refused, and what runs with it is cut within a second (I19)."""

import contextlib
import os
import socket
import threading
import time

import openai
import pytest
from tests.cli import in_process
from tests.support import engines, servers, uploading
from tests.support.servers import Server
from tests.support.uploading import Field

from tunewarden.identity import keys
from tunewarden.identity.policy import Role

BOUND_SECONDS = 1.0
# Of this process, whose clock and parser may be late on a busy machine.
LATE_SECONDS = 10.0
# Neither stream comes to its end by itself.
TOKENS = 1900
MORE_CHUNKS = 20


@pytest.fixture(scope="module")
def server(engine_server: Server) -> Server:
    return engine_server


def _key(server: Server) -> tuple[str, str]:
    with server.app.database.write() as tx:
        key, text = keys.create(tx, organization="leaked", role=Role.OWNER, name="leaked")
    return key.id, text


def _revoke(server: Server, key_id: str) -> float:
    revoked = in_process.on(server, "keys", "revoke", key_id)
    assert revoked.returncode == 0, revoked.stderr
    return time.monotonic()


class _Stream:
    """A chat that goes on for TOKENS, read in a thread until it ends or is left."""

    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self.chunks = 0
        self.is_left = False
        self.ended_at = 0.0
        self.error: openai.APIError | None = None
        self._stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=TOKENS,
            stream=True,
            logit_bias=engines.without_end(),
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for _ in self._stream:
                self.chunks += 1
                if self.is_left:
                    self._stream.close()
                    break
        except openai.APIError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def wait(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("what", ["base", "fine-tune"])
def test_a_stream_with_a_revoked_key_is_cut_and_another_one_goes_on(
    server: Server, what: str
) -> None:
    key_id, text = _key(server)
    model = engines.BASE
    if what == "fine-tune":
        model = engines.import_model(server, "zebra says", key=text)
    cut = _Stream(server.client(text, max_retries=0), model)
    other = _Stream(server.client(max_retries=0), engines.BASE)
    servers.wait_until(lambda: cut.chunks > 3 and other.chunks > 3, "both streams run")
    revoked_at = _revoke(server, key_id)
    cut.wait()
    assert cut.error is not None
    assert cut.error.code == "invalid_api_key"
    assert "revoked" in cut.error.message
    assert cut.ended_at - revoked_at < BOUND_SECONDS + LATE_SECONDS
    with pytest.raises(openai.AuthenticationError):
        server.client(text).models.list()
    had = other.chunks
    servers.wait_until(
        lambda: other.chunks > had + MORE_CHUNKS or other.error is not None, "the other goes on"
    )
    other.is_left = True
    other.wait()
    assert other.error is None, "the control: what runs with another key goes on"
    assert other.chunks > had + MORE_CHUNKS


def test_a_download_with_a_revoked_key_is_broken_off(server: Server) -> None:
    key_id, text = _key(server)
    content = os.urandom(24 * 1024 * 1024)
    file = server.client(text).files.create(file=("big.bin", content), purpose="user_data")
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /v1/files/{file.id}/content HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {text}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
        revoked_at = _revoke(server, key_id)
        time.sleep(max(0.0, BOUND_SECONDS - (time.monotonic() - revoked_at)))
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                received += len(piece)
        assert received < len(content) / 2


def test_an_upload_with_a_revoked_key_leaves_nothing(server: Server) -> None:
    key_id, text = _key(server)
    body = uploading.form(
        Field("purpose", b"user_data"), Field("file", b"x" * 1_000_000, "late.bin")
    )
    with server.connect() as connection:
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {text}\r\n"
            f"content-type: {uploading.CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body[:-10]
        )
        time.sleep(0.2)
        _revoke(server, key_id)
        connection.sendall(body[-10:])
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    left = "SELECT COUNT(*) FROM artifacts WHERE created_by = :key"
    assert server.app.database.peek(left, key=key_id) == (0,)
