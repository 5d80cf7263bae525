"""`tunewarden audit verify` over HTTP against a server, or a proxy before it, that takes an event out and lies about it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.support import administration, lone_worker
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden_receipts.audit_digest import AuditPart, events_root

Digest = dict[str, Any]
DIGESTS = "/v1/organization/audit_logs/digests/"


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[Server]:
    """A worker with three digests of one organization, and newer events."""
    with lone_worker.serving(tmp_path / "data") as server:
        for _ in range(3):
            for _ in range(2):
                administration.make_user(server.app, "somebody", organization="mine")
            administration.make_digest(server.app)
        yield server


@contextmanager
def _lying(server: Server, lie: Callable[[str, bytes], bytes]) -> Iterator[str]:
    """Run a proxy that answers what `lie` makes of the server's answer to a path; yield its URL."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorization = self.headers["authorization"]
            headers = {"authorization": authorization} if authorization else {}
            reply = server.request("GET", self.path, headers=headers)
            body = lie(self.path, reply.body) if reply.status == 200 else reply.body
            self.send_response(reply.status)
            for name, value in reply.headers:
                if name not in {"content-length", "transfer-encoding", "date", "server"}:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    running = threading.Thread(target=proxy.serve_forever)
    running.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}/v1"
    finally:
        proxy.shutdown()
        running.join()
        proxy.server_close()


def _verify(server: Server, url: str, tmp_path: Path) -> tuple[int, dict[str, Any], str]:
    """Verify with the log's key pinned."""
    key = tmp_path / "log.pem"
    key.write_bytes(server.get("/.well-known/tunewarden-log-key", key=None).body)
    settings = {
        "TUNEWARDEN_URL": url,
        "TUNEWARDEN_ADMIN_KEY": administration.make_admin_key(server.app, "mine"),
    }
    options = ("audit", "verify", "--log-key", str(key))
    done = in_process.run_cli(*options, "--json", settings=settings)
    told = in_process.run_cli(*options, settings=settings)
    assert done.returncode == told.returncode
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), told.stderr


def _digest(server: Server, number: int) -> Digest:
    key = administration.make_admin_key(server.app, "mine")
    found: Digest = administration.ask(server, "GET", f"/audit_logs/digests/{number}", key).json
    return found


class _WithoutAnEvent:
    """Takes an event of a digest out of all answers, and makes this digest and those after it fit; they have no proof."""

    def __init__(self, server: Server, number: int) -> None:
        first = _digest(server, number)
        self.hidden = str(first["entries"][0]["id"])
        self.forged: dict[str, Digest] = {}
        previous = first["previous"]
        for digest in (_digest(server, one) for one in range(number, 4)):
            left = [one for one in digest["entries"] if one["id"] != self.hidden]
            root = events_root([bytes.fromhex(one["hash"]) for one in left])
            part = AuditPart(digest["organization_id"], digest["number"], len(left), root, previous)
            self.forged[str(part.number)] = digest | {
                "entries": left,
                "events": len(left),
                "root": root,
                "previous": previous,
                "receipt": None,
            }
            previous = part.commitment(bytes.fromhex(digest["salt"]))

    def __call__(self, path: str, body: bytes) -> bytes:
        digest = self.forged.get(path.removeprefix(DIGESTS))
        if digest is not None:
            return json.dumps(digest).encode()
        if path.endswith("/events"):
            lines = body.splitlines(keepends=True)
            return b"".join(line for line in lines if self.hidden.encode() not in line)
        return body


def test_digests_without_proof_are_problems(audited: Server, tmp_path: Path) -> None:
    with _lying(audited, lambda _, body: body) as url:
        status, found, _ = _verify(audited, url, tmp_path)
        assert (status, found["problems"], found["unproven"]) == (ExitCode.DONE, [], 0)
    with _lying(audited, _WithoutAnEvent(audited, 1)) as url:
        status, found, _ = _verify(audited, url, tmp_path)
    assert status == ExitCode.FAILED
    assert [one["digest"] for one in found["problems"]] == [1, 2]
    assert {one["what"] for one in found["problems"]} == {
        "it has no proof, though it is not the newest digest"
    }
    assert found["unproven"] == 3


def test_the_newest_digest_without_proof_is_told(audited: Server, tmp_path: Path) -> None:
    with _lying(audited, _WithoutAnEvent(audited, 3)) as url:
        status, found, told = _verify(audited, url, tmp_path)
    assert (status, found["problems"], found["unproven"]) == (ExitCode.DONE, [], 1)
    assert "1 digests have no proof" in told


def _older(lines: bytes) -> bytes:
    """The same events years ago."""
    return b"".join(
        json.dumps(json.loads(line) | {"effective_at": "2020-01-01T00:00:00Z"}).encode() + b"\n"
        for line in lines.splitlines()
    )


def test_events_that_are_days_old_have_a_digest_with_proof(audited: Server, tmp_path: Path) -> None:
    def ages(path: str, body: bytes) -> bytes:
        return _older(body) if path == f"{DIGESTS}4/events" else body

    with _lying(audited, ages) as url:
        status, found, _ = _verify(audited, url, tmp_path)
    assert status == ExitCode.FAILED
    said = [one["what"] for one in found["problems"]]
    assert any("no digest covers this event" in what for what in said), said
