"""What tests of files and uploads share: forms as bytes, uploads that stall, and looking for what is left."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import Reply, Server, wait_until

from tunewarden.deletion import unfinished

BOUNDARY = "a-boundary-of-ours"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Field:
    """One part of a form; a file has a filename. Its surrogates are bytes that are no UTF-8."""

    name: str
    content: bytes
    filename: str | None = None

    def encoded(self) -> bytes:
        file = "" if self.filename is None else f'; filename="{self.filename}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{self.name}"{file}\r\n\r\n'
        return head.encode(errors="surrogateescape") + self.content + b"\r\n"


def form(*fields: Field) -> bytes:
    """Return a multipart body."""
    return b"".join(field.encoded() for field in fields) + f"--{BOUNDARY}--\r\n".encode()


def post(
    server: Server, path: str, *fields: Field, key: str | None = None, body: bytes | None = None
) -> Reply:
    return server.request(
        "POST",
        path,
        key=key or server.owner_key,
        headers={"content-type": CONTENT_TYPE},
        body=form(*fields) if body is None else body,
    )


def begin(server: Server, path: str, body: bytes, *, length: int) -> socket.socket:
    """Send the head of a request and some of its body; the rest is up to the test."""
    connection = server.connect()
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.owner_key}\r\n"
        f"content-type: {CONTENT_TYPE}\r\ncontent-length: {length}\r\n\r\n".encode()
        + body
    )
    return connection


def state(server: Server) -> dict[str, object]:
    """Everything that a file could leave somewhere."""
    app = server.app
    with app.database.read() as tx:
        rows = {
            table: tx.rows(f"SELECT COUNT(*) FROM {table}")
            for table in ("drafts", "artifacts", "blobs", "upload_parts")
        }
    return {
        "rows": rows,
        "blobs": sorted(path.name for path in app.config.blobs.rglob("*") if path.name != ".lock"),
        "keys": [one for shard in app.keyring.shards() for one in app.keyring.key_ids(shard)],
        "scratch": sorted(server.scratch.rglob("*/*")),
        "tmp": sorted(server.tmp.rglob("*")),
    }


def settle(server: Server) -> None:
    """Return when no deletion has a step left, so that states can be compared."""
    database = server.app.database
    wait_until(
        lambda: not unfinished.unanswered(database) and not unfinished.unerased(database),
        "deletions are finished",
    )


def holding(directory: Path, *canaries: bytes) -> list[Path]:
    """Return the files that hold a canary; what goes away meanwhile is looked at next time."""
    found = []
    for path in directory.rglob("*"):
        try:
            if path.is_file() and _holds(path.read_bytes(), canaries):
                found.append(path)
        except (FileNotFoundError, PermissionError, OSError):
            continue
    return found


def _holds(content: bytes, canaries: Sequence[bytes]) -> bool:
    return any(canary in content for canary in canaries)


def incoming(server: Server) -> int:
    """How many sealed bytes of unfinished blobs lie in the data directory."""
    sizes = 0
    for path in (server.data / "blobs" / ".incoming").iterdir():
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


def erase(server: Server, key: str) -> str:
    """Upload a file and erase it with everything that learned from it: nothing; return the case's id."""
    fields = (Field("purpose", b"fine-tune"), Field("file", b"{}\n", "erased.jsonl"))
    file = post(server, "/v1/files", *fields, key=key).json["id"]
    answer = server.request("DELETE", f"/v1/files/{file}?cascade=models", key=key)
    return str(answer.header("tunewarden-deletion-case"))
