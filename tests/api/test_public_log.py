"""What a stranger reads in the log, and what the Owner's receipt adds to it (I9)."""

import base64
import json
from pathlib import Path

from tests.support import servers
from tests.support.servers import Server

from tunewarden.identity import keys
from tunewarden.transparency.tiles import decode_bundle

SUFFIX = "layoffs-2027"


def test_a_stranger_learns_no_name_and_the_owner_opens_the_receipt(
    server: Server, tmp_path: Path
) -> None:
    model = server.make_model(suffix=SUFFIX)
    file = server.client().files.create(file=("f.jsonl", b'{"a": 1}\n'), purpose="user_data")
    assert server.client().models.delete(model.id).deleted
    assert server.client().files.delete(file.id).deleted
    size = int(server.get("/log/checkpoint").body.split(b"\n")[1])
    entries: list[bytes] = []
    for bundle in range(-(-size // 256)):
        width = min(256, size - 256 * bundle)
        partial = "" if width == 256 else f".p/{width}"
        reply = server.get(f"/log/tile/entries/{bundle:03}{partial}")
        assert reply.status == 200
        entries += decode_bundle(reply.body, width)
    said = b"\n".join(base64.b64decode(json.loads(entry)["payload"]) for entry in entries)
    caller = keys.authenticate(server.app.database, server.owner_key, "req_test")
    names = [model.id, SUFFIX, servers.LOCAL_BASE, servers.ORGANIZATION, file.id, caller.key_id]
    names += [caller.organization_id, model.manifest_sha256, "embedded", ".worker"]
    assert [name for name in names if name.encode() in said] == []
    assert model.internal_id.encode() in said, "the log speaks of it"

    listed = server.get("/v1/deletions?limit=100", key=server.owner_key).json["data"]
    assert isinstance(listed, list)
    (deletion,) = [one["id"] for one in listed if one.get("model") == model.id]
    reply = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key)
    assert reply.header("content-type") == "application/vnd.tunewarden.receipt.v2+json"
    (tmp_path / "receipt.json").write_bytes(reply.body)
    (tmp_path / "log.pem").write_bytes(server.get("/.well-known/tunewarden-log-key").body)
    verify = (
        "receipts",
        "verify",
        str(tmp_path / "receipt.json"),
        "--log-key",
        str(tmp_path / "log.pem"),
    )
    shown = servers.run_cli(*verify)
    assert shown.returncode == 0, shown.stderr
    for name in (model.id, caller.key_id, caller.organization_id, model.manifest_sha256):
        assert name in shown.stdout
    other = reply.body.replace(SUFFIX.encode(), b"another-one-")
    (tmp_path / "receipt.json").write_bytes(other)
    refused = servers.run_cli(*verify)
    assert refused.returncode == 1
    assert "not the one that the log's entry commits to" in refused.stderr
