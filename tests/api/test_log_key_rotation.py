"""`tunewarden log rotate-key` on a real server's data directory: what clients, auditors and operators see."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.support import administration, servers, webhook_rows
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden_receipts import receipt
from tunewarden_receipts.key_chain import KeyChain
from tunewarden_receipts.note import LogKey, open_checkpoint

LOG_KEY = "/.well-known/tunewarden-log-key"
HAND_OVERS = "/log/hand-overs"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one server before its log's key was rotated."""

    server: Server
    log_key: Path
    receipt: bytes
    checkpoint: bytes
    endpoint: str


def delete(server: Server) -> bytes:
    """Delete a new model by the stock SDK; return its receipt."""
    model = server.make_model()
    assert server.client().models.delete(model.id).deleted
    found = server.get("/v1/deletions?limit=1", key=server.owner_key).json["data"]
    assert isinstance(found, list)
    return server.get(f"/v1/deletions/{found[0]['id']}/receipt", key=server.owner_key).body


def rotate(server: Server, *options: str) -> dict[str, object]:
    done = server.cli("log", "rotate-key", "--yes", "--json", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    root = tmp_path_factory.mktemp("rotated")
    with servers.serving(
        root / "data", local_base=True, kind=servers.WithoutTorch, workers=2
    ) as server:
        log_key = root / "log.pem"
        log_key.write_bytes(server.get(LOG_KEY).body)
        endpoint = webhook_rows.make_endpoint(server.app, server.owner_key)
        administration.make_digest(server.app)
        seen = Seen(server, log_key, delete(server), server.get("/log/checkpoint").body, endpoint)
        refused = server.cli("log", "rotate-key", "--yes")
        assert refused.returncode == ExitCode.CONFLICT
        assert "already running" in refused.stderr
        server.stop()
        asked = server.cli("log", "rotate-key", stdin="n\n")
        assert asked.returncode != 0
        assert "will be replaced" in asked.stderr
        # As if another rotation had been killed before its leaf.
        following = server.data / "log.key.next"
        following.touch(mode=0o600)
        following.write_bytes(bytes(32))
        doctor = server.cli("doctor")
        assert (doctor.returncode, "was interrupted" in doctor.stdout) == (1, True)
        dry = rotate(server, "--dry-run")
        assert following.read_bytes() == bytes(32), "a dry run undoes nothing"
        assert (dry["interrupted"], dry["entry"]) == (True, None)
        said = server.cli("log", "rotate-key", "--dry-run").stderr
        assert "was interrupted" in said
        found = rotate(server)
        assert dry["previous_key"] == found["previous_key"]
        assert (dry["new_key"], dry["dry_run"]) == (None, True)
        assert found["new_key"] not in {None, found["previous_key"]}
        server.start_again()
        yield seen


def verified(stored: bytes, log_key: Path, tmp_path: Path, *options: str) -> tuple[int, str]:
    """Verify offline, by the command."""
    (tmp_path / "receipt.json").write_bytes(stored)
    done = in_process.run_cli(
        "receipts", "verify", str(tmp_path / "receipt.json"), "--log-key", str(log_key), *options
    )
    return done.returncode, done.stdout + done.stderr


def test_receipts_from_before_verify_as_ever_and_new_ones_by_the_hand_over(
    rotated: Seen, tmp_path: Path
) -> None:
    assert verified(rotated.receipt, rotated.log_key, tmp_path)[0] == 0
    new = delete(rotated.server)
    (tmp_path / "new.pem").write_bytes(rotated.server.get(LOG_KEY).body)
    (tmp_path / "hand-overs").write_bytes(rotated.server.get(HAND_OVERS).body)
    hand_overs = ("--hand-overs", str(tmp_path / "hand-overs"))
    for stored in (rotated.receipt, new):
        assert verified(stored, rotated.log_key, tmp_path, *hand_overs)[0] == 0
    assert verified(new, tmp_path / "new.pem", tmp_path)[0] == 0
    status, said = verified(new, rotated.log_key, tmp_path)
    assert status == ExitCode.FAILED
    assert "names another key" in said
    assert verified(rotated.receipt, tmp_path / "new.pem", tmp_path, *hand_overs)[0] == 1


def test_the_hand_over_is_in_the_log_and_both_keys_signed_its_checkpoint(rotated: Seen) -> None:
    served = rotated.server.get(HAND_OVERS)
    assert served.header("content-type") == "application/vnd.tunewarden.log-key-hand-overs.v1+json"
    old = LogKey.parse(rotated.log_key.read_bytes())
    chain = KeyChain.parse(served.body, old)
    (hand,) = chain.hand_overs
    assert hand.key.pem() == rotated.server.get(LOG_KEY).body
    first = open_checkpoint(rotated.checkpoint, old)
    both = open_checkpoint(hand.checkpoint, old)
    assert both == open_checkpoint(hand.checkpoint, hand.key)
    log, _ = rotated.server.app.open_log()
    proof = log.consistency_proof(first.size, both.size)
    receipt.verify_consistency(
        rotated.checkpoint, hand.checkpoint, proof, rotated.log_key.read_bytes()
    )
    newest = rotated.server.get("/log/checkpoint").body
    proof = log.consistency_proof(both.size, open_checkpoint(newest, hand.key).size)
    receipt.verify_consistency(hand.checkpoint, newest, proof, hand.key.pem())


def test_the_checks_of_operator_and_organization_follow_the_keys(rotated: Seen) -> None:
    server = rotated.server
    administration.make_digest(server.app)
    checked = server.cli("audit", "verify", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["problems"]) == (0, [])
    doctor = server.cli("doctor")
    assert doctor.returncode == 0
    assert "rotated 1 times" in doctor.stdout
    remote = {
        "TUNEWARDEN_URL": server.url,
        "TUNEWARDEN_ADMIN_KEY": administration.make_admin_key(server.app),
    }
    for options in ((), ("--log-key", str(rotated.log_key))):
        own = in_process.run_cli("audit", "verify", "--json", *options, settings=remote)
        assert own.returncode == 0, own.stderr
        found = json.loads(own.stdout)
        assert found["problems"] == []
        assert found["digests"] >= 2, "one of each key"


def test_endpoints_and_their_secrets_are_as_before(rotated: Seen) -> None:
    found = rotated.server.get(
        f"/v1/webhook_endpoints/{rotated.endpoint}", key=rotated.server.owner_key
    )
    assert found.status == 200
    assert found.json["url"] == webhook_rows.NOWHERE


def test_the_operator_verifies_receipts_of_all_keys_without_naming_one(
    rotated: Seen, tmp_path: Path
) -> None:
    for stored in (rotated.receipt, delete(rotated.server)):
        (tmp_path / "receipt.json").write_bytes(stored)
        done = rotated.server.cli("receipts", "verify", str(tmp_path / "receipt.json"))
        assert done.returncode == 0, done.stderr


def test_the_console_shows_receipts_of_all_keys_with_their_key(rotated: Seen) -> None:
    server = rotated.server
    delete(server)
    visitor = Visitor(server, server.owner_key)
    found = server.get("/v1/deletions?limit=100", key=server.owner_key).json["data"]
    pages = [visitor.text(f"/console/deletions/{one['id']}") for one in found]
    for log_key in (rotated.log_key.read_text(), server.get(LOG_KEY).body.decode()):
        key_id = LogKey.parse(log_key.encode()).digest()
        assert any(f"sha256:{key_id}" in page for page in pages)


def test_the_act_is_recorded_and_the_old_seed_is_gone(rotated: Seen) -> None:
    assert [one.name for one in rotated.server.data.glob("log.key*")] == ["log.key"]
    row = rotated.server.app.database.peek(
        "SELECT count(*) FROM audit_events WHERE type = 'log.key.rotated'"
    )
    assert row == (1,)
