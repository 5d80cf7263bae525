"""A data directory of version 0.1 opens: nothing is lost, old receipts verify, and deletions go on.

`golden/data-0.1.tar.gz` was written by a server of version 0.1 (revision 307a0c2): two organizations, each with a
model that was deleted, a deleted file, a deletion whose blobs are still there (D9), one that has stated what its leaf
will say (D7), and one that was only asked for (D3). Its keys are throwaway ones.
"""

import gc
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import servers

from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.deletion import records
from tunewarden.deletion.requests import Attempt
from tunewarden.identity import keys
from tunewarden.recovery_at_start import recover
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden_receipts import receipt
from tunewarden_receipts.facts import DeletionFacts
from tunewarden_receipts.leaf import DeletionLeaf
from tunewarden_receipts.receipt import VerifiedReceipt
from tunewarden_receipts.statement import BlobsErased, Deleted

PACKED = Path(__file__).parents[1] / "golden" / "data-0.1.tar.gz"


class Upgraded(FakeEngineServer):
    """Its base lay on another machine: no engine has it."""

    def has_engine(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Old:
    """The server on the old directory, and what is known of it from before."""

    server: Upgraded
    ids: dict[str, str]
    owner: str
    others_owner: str
    log_key: bytes
    receipts: dict[str, str]

    def deletion_of(self, model: str, key: str) -> dict[str, object]:
        listed = self.server.get("/v1/deletions?limit=100", key=key).json["data"]
        assert isinstance(listed, list)
        (found,) = [one for one in listed if model in {one.get("model"), one.get("file")}]
        assert isinstance(found, dict)
        return found

    def receipt_of(self, model: str, key: str) -> bytes:
        deletion = self.deletion_of(model, key)["id"]
        return self.server.get(f"/v1/deletions/{deletion}/receipt", key=key).body

    def verified(self, model: str) -> VerifiedReceipt:
        return receipt.verify(self.receipt_of(model, self.owner), self.log_key)


def unpack(directory: Path) -> dict[str, Any]:
    """Unpack the old directory; return what is known of it."""
    with tarfile.open(PACKED) as packed:
        packed.extractall(directory, filter="data")
    facts: dict[str, Any] = json.loads((directory / "facts.json").read_text())
    return facts


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    directory = tmp_path_factory.mktemp("upgrade")
    facts = unpack(directory)
    server = Upgraded(directory / "data", workers=1)
    try:
        yield Old(
            server,
            facts["ids"],
            facts["owner"],
            facts["others_owner"],
            facts["log_key"].encode(),
            facts["receipts"],
        )
    finally:
        server.kill()


def test_everything_is_there_and_nothing_deleted_is_back(old: Old) -> None:
    ids = old.ids
    models = {model.id for model in old.server.client(old.owner).models.list()}
    assert models == {servers.LOCAL_BASE, ids["kept"], ids["used"]}
    others = {model.id for model in old.server.client(old.others_owner).models.list()}
    assert others == {servers.LOCAL_BASE, ids["others-kept"]}
    files = [file.id for file in old.server.client(old.owner).files.list()]
    assert files == [ids["file-kept"]]
    content = old.server.client(old.owner).files.content(ids["file-kept"]).read()
    assert content.startswith(b'{"messages": ')


def test_old_receipts_are_the_same_bytes_and_verify(old: Old) -> None:
    assert len(old.receipts) == 4
    for what, stored in old.receipts.items():
        key = old.others_owner if what == old.ids["others-gone"] else old.owner
        assert old.receipt_of(what, key) == stored.encode()
        facts = receipt.verify(stored.encode(), old.log_key).facts
        assert isinstance(facts, DeletionFacts)
        assert facts.artifact_id == what


def test_deletions_that_were_under_way_end(old: Old) -> None:
    stated, asked = old.ids["half-stated"], old.ids["half-asked"]
    for model in (stated, asked, old.ids["gone-unerased"]):
        servers.wait_until(
            lambda model=model: old.deletion_of(model, old.owner)["blobs_erased_at"],  # type: ignore[misc]  # mypy infers no lambda with a default
            f"{model} is erased",
        )
    # What was stated before stands in the log as it was stated: it may have been there already.
    assert isinstance(old.verified(stated).facts, DeletionFacts)
    proven = old.verified(asked)
    assert isinstance(proven.facts, DeletionLeaf)
    assert proven.disclosed is not None
    assert proven.disclosed.artifact_id == asked
    log, signer = old.server.app.open_log()
    said = [receipt.verify_entry(entry, signer.public_pem()) for _, entry in log.entries()]
    pairs = [
        (type(facts).__name__.removesuffix("Leaf").removesuffix("Facts"), facts.deletion_id)
        for facts in said
        if isinstance(facts, Deleted | BlobsErased)
    ]
    assert len(set(pairs)) == len(pairs), "a deletion has two leaves"


def test_models_of_before_are_deleted_with_receipts_of_format_2(old: Old) -> None:
    client = old.server.client(old.owner)
    for name, how in (("kept", "not_loaded"), ("used", "restarted")):
        assert client.models.delete(old.ids[name]).deleted
        shown = old.verified(old.ids[name]).disclosed
        assert shown is not None
        assert shown.artifact_id == old.ids[name]
        assert [engine.how for engine in shown.engines or ()] == [how]
    assert client.files.delete(old.ids["file-kept"]).deleted
    assert isinstance(old.verified(old.ids["file-kept"]).facts, DeletionLeaf)


def test_entries_that_name_somebody_are_for_the_organization_that_they_name(old: Old) -> None:
    server = old.server
    assert server.get("/log/checkpoint").status == 200
    assert server.get("/log/tile/0/000.p/5").status == 200
    first, mixed = "/log/tile/entries/000.p/1", "/log/tile/entries/000.p/5"
    assert server.get(first).status == 401
    assert server.get(first, key="sk-nobody").status == 401
    assert server.get(first, key=old.owner).status == 200
    assert server.get(first, key=old.owner).header("cache-control") == "private, no-store"
    refused = server.get(first, key=old.others_owner)
    assert (refused.status, refused.error["code"]) == (403, "entries_of_others")
    for key in (old.owner, old.others_owner):
        assert server.get(mixed, key=key).status == 403
    assert server.get(mixed).status == 401


def _opened(directory: Path) -> App:
    """Open the data directory as a server that starts does, and end what is under way."""
    app = open_app(Config(data=directory / "data", scratch=Path("/dev/shm")), migrate=True)
    recover(app)
    assert app.executor.resume() == 0
    return app


def test_a_backup_of_0_1_that_is_restored_opens_the_receipts_of_later_deletions(
    tmp_path: Path,
) -> None:
    """Its artifacts get the salts again that they got when the directory was upgraded first."""
    facts = unpack(tmp_path)
    database = tmp_path / "data" / "tunewarden.sqlite"
    backup = database.read_bytes()
    app = _opened(tmp_path)
    caller = keys.authenticate(app.database, facts["owner"], "req_test")
    model = facts["ids"]["kept"]
    first = app.executor.delete(caller, ArtifactKind.MODEL, model, Attempt())
    assert app.executor.resume() == 0
    del app
    gc.collect()
    for path in database.parent.glob("tunewarden.sqlite*"):
        path.unlink()
    database.write_bytes(backup)
    restored = _opened(tmp_path)
    again = records.find(restored.database, first.id)
    assert again is not None
    assert again.receipt is not None
    proven = receipt.verify(again.receipt, facts["log_key"].encode())
    shown = proven.disclosed
    assert shown is not None
    assert (shown.artifact_id, shown.requested_by) == (model, caller.key_id)
    assert (shown.blobs is not None, shown.hosts is not None) == (True, True)
    assert shown.engines is None, "what engines said is in no backup from before"
