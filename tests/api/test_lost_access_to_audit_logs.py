"""An administrator who loses access while audit events are sent: what is on its way is cut within a second (I19)."""

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from tests.support import administration
from tests.support.administration import ask
from tests.support.servers import Server, WithoutTorch, serving

from tunewarden import audit
from tunewarden.identity.policy import Role

EVENTS = 20_000
BOUND_SECONDS = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with megabytes of events, some of which a digest covers."""
    with serving(tmp_path_factory.mktemp("lost") / "data", kind=WithoutTorch) as running:
        other = administration.make_admin_key(running.app)
        assert ask(running, "GET", "/users", other).status == 200
        with running.app.database.write() as tx:
            row = tx.row("SELECT organization_id FROM admin_api_keys")
            assert row is not None
            for number in range(EVENTS):
                audit.record(
                    tx,
                    audit.EventType.FILE_CREATED,
                    organization_id=str(row[0]),
                    actor=audit.SERVER,
                    resource_id=f"file-{number:0150}",
                )
        administration.make_digest(running.app)
        yield running


@pytest.mark.parametrize("path", ["export", "digests/1/events"])
def test_a_demoted_owners_export_is_cut(server: Server, path: str) -> None:
    user = administration.make_user(server.app, "leaver", role=Role.OWNER)
    key = administration.make_admin_key(server.app, user_id=user)
    other = administration.make_admin_key(server.app)
    whole = ask(server, "GET", f"/audit_logs/{path}", key).body
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"GET /v1/organization/audit_logs/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 200 ")
        demoted = ask(server, "POST", f"/users/{user}", other, {"role": "reader"})
        assert demoted.status == 200, demoted.body
        time.sleep(BOUND_SECONDS)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                received += len(piece)
    assert received < len(whole) / 2
    assert ask(server, "GET", f"/audit_logs/{path}", other).body.startswith(whole[:1000]), (
        "the control: another administrator gets all"
    )


def test_an_export_that_another_owner_reads_slowly_goes_on(server: Server) -> None:
    key = administration.make_admin_key(server.app)
    with contextlib.closing(server.connect()) as connection:
        head = f"GET /v1/organization/audit_logs/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        connection.sendall(f"{head}connection: close\r\n\r\n".encode())
        time.sleep(BOUND_SECONDS)
        pieces = []
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    received = b"".join(pieces)
    assert received.endswith(b"0\r\n\r\n"), "it is complete"
    assert received.count(b'"file.created"') == EVENTS
