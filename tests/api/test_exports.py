"""Exports over a real socket: what is sent, to whom, what stays on record, and what a deletion does to one that runs."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest
from tests.cli import in_process
from tests.support import bases, servers, wide_models
from tests.support.bases import Adapter
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch, wait_until

from tunewarden.app import exports
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller
from tunewarden.registry import export_rows
from tunewarden.registry.export_rows import Export
from tunewarden.registry.models import Model
from tunewarden_receipts import receipt
from tunewarden_receipts.leaf import DeletionLeaf, Disclosure, ExportLeaf

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("exports") / "data"
    with servers.serving(data, local_base=True, kind=WithoutTorch, workers=1) as running:
        wide_models.add_wide_base(running, data.parent / "wide")
        yield running


@pytest.fixture(scope="module")
def wide() -> Adapter:
    return wide_models.wide_adapter()


def exported(server: Server, model: str, key: str | None = None) -> httpx2.Response:
    """Export with the stock SDK."""
    client = server.client(key, max_retries=0)
    return client.get(f"/models/{model}/content", cast_to=httpx2.Response)


def files_in(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def on_record(server: Server, model: Model) -> list[Export]:
    with server.app.database.read() as tx:
        return export_rows.of(tx, model.n)


def export_leaves(server: Server) -> list[ExportLeaf]:
    log, signer = server.app.open_log()
    facts = (receipt.verify_entry(entry, signer.public_pem()) for _, entry in log.entries())
    return [one for one in facts if isinstance(one, ExportLeaf)]


def caller_of(server: Server) -> Caller:
    return keys.authenticate(server.app.database, server.owner_key, "req_test")


def test_what_is_exported_is_what_was_imported_and_comes_back_bit_by_bit(server: Server) -> None:
    adapter = bases.adapter()
    first = servers.import_adapter(server.app, server.owner_key, adapter=adapter)
    answer = exported(server, first.id)
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert f"{first.id.replace(':', '-')}.zip" in answer.headers["content-disposition"]
    files = files_in(answer.content)
    assert list(files) == [CONFIG, WEIGHTS]
    assert files[WEIGHTS] == adapter.weights
    kept = json.loads(files[CONFIG])
    assert (kept["r"], kept["peft_type"]) == (bases.RANK, "LORA")
    assert kept["base_model_name_or_path"] == LOCAL_BASE
    again = Adapter(files[CONFIG], files[WEIGHTS])
    second = servers.import_adapter(server.app, server.owner_key, adapter=again)
    assert files_in(exported(server, second.id).content) == files
    assert second.manifest_sha256 == first.manifest_sha256


def test_an_export_is_a_leaf_and_an_event_before_its_first_byte_and_every_receipt_names_it(
    server: Server, tmp_path: Path
) -> None:
    model, other = server.make_model(), server.make_model()
    before = len(export_leaves(server))
    exported(server, model.id)
    exported(server, model.id)
    made = on_record(server, model)
    leaves = export_leaves(server)[before:]
    assert [one.export_id for one in leaves] == [one.id for one in made]
    assert all(one.internal_id == model.internal_id for one in leaves)
    key_id = caller_of(server).key_id
    assert [one.exported_by for one in made] == [key_id, key_id]
    with server.app.database.read() as tx:
        events = tx.rows(
            "SELECT actor_key_id, details FROM audit_events WHERE type = 'model.exported'"
            " AND resource_id = :id ORDER BY n",
            id=model.id,
        )
    assert [(row[0], json.loads(row[1])["export"]) for row in events] == [
        (key_id, one.id) for one in made
    ]
    receipts = {}
    for one in (model, other):
        answer = server.request("DELETE", f"/v1/models/{one.id}", key=server.owner_key)
        path = f"/v1/deletions/{answer.header('tunewarden-deletion')}/receipt"
        receipts[one.id] = server.get(path, key=server.owner_key).body
    _, signer = server.app.open_log()
    verified = receipt.verify(receipts[model.id], signer.public_pem())
    assert isinstance(verified.facts, DeletionLeaf)
    assert verified.facts.exports is not None
    assert verified.facts.exports.count == 2
    assert verified.disclosed is not None
    assert verified.disclosed.exports is not None
    assert [one.exported_by for one in verified.disclosed.exports] == [key_id, key_id]
    assert [one.exported_at for one in verified.disclosed.exports] == [
        one.exported_at for one in leaves
    ]
    never = receipt.verify(receipts[other.id], signer.public_pem()).disclosed
    assert never is not None
    assert never.exports == ()
    said = _verified_elsewhere(tmp_path, receipts[model.id], signer.public_pem())
    assert "exports:      2, not reached by this deletion" in said
    assert said.count(f" by {key_id}\n") == 3  # who deleted it, and two exports


def _verified_elsewhere(directory: Path, data: bytes, key: bytes) -> str:
    """Verify with the independent package's command."""
    (directory / "receipt.json").write_bytes(data)
    (directory / "log.pem").write_bytes(key)
    command = [str(Path(sys.executable).with_name("tunewarden-receipts")), "verify"]
    ran = subprocess.run(
        [*command, str(directory / "receipt.json"), "--log-key", str(directory / "log.pem")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ran.stdout


def test_who_may_not_export_learns_no_more_than_anywhere_and_nothing_is_recorded(
    server: Server,
) -> None:
    model = server.make_model()
    foreign = server.make_key("owner", organization="others")
    with pytest.raises(openai.NotFoundError) as unknown:
        exported(server, model.id, foreign)
    with pytest.raises(openai.NotFoundError) as missing:
        exported(server, f"{model.id[:-8]}00000000", foreign)
    assert unknown.value.response.text.replace(model.id, "X") == (
        missing.value.response.text.replace(f"{model.id[:-8]}00000000", "X")
    )
    for key in (server.make_key("reader"), server.make_key("owner", "api.model.read")):
        with pytest.raises(openai.PermissionDeniedError, match=r"api\.model\.export"):
            exported(server, model.id, key)
    exported(server, model.id, server.make_key("owner", "api.model.export"))
    assert len(on_record(server, model)) == 1
    with server.app.database.read() as tx:
        refused = tx.rows(
            "SELECT details FROM audit_events WHERE type = 'request.refused' AND resource_id = :id",
            id=model.id,
        )
    assert len(refused) == 2
    assert all("/content" in row[0] for row in refused)


def test_an_archived_model_is_exported_a_deleted_one_and_a_base_are_not(server: Server) -> None:
    model = server.make_model()
    server.post(f"/v1/models/{model.id}", {"archived": True})
    assert files_in(exported(server, model.id).content)
    head = server.request("HEAD", f"/v1/models/{model.id}/content", key=server.owner_key)
    assert head.status == 200
    assert len(on_record(server, model)) == 1, "a head sends nothing"
    server.client().models.delete(model.id)
    for name in (model.id, LOCAL_BASE):
        with pytest.raises(openai.NotFoundError):
            exported(server, name)


def test_a_model_that_is_archived_during_its_export_arrives(server: Server, wide: Adapter) -> None:
    model = wide_models.make_wide_model(server, wide)
    with _begun(server, model) as response:
        pieces = response.iter_bytes(MIB)
        received = next(pieces)
        assert server.post(f"/v1/models/{model.id}", {"archived": True}).status == 200
        received += b"".join(pieces)
    assert files_in(received)[WEIGHTS] == wide.weights
    server.client().models.delete(model.id)


def test_a_deletion_cuts_an_export_which_is_no_archive_then(server: Server, wide: Adapter) -> None:
    model = wide_models.make_wide_model(server, wide)
    received = b""
    with _begun(server, model) as response:
        pieces = response.iter_bytes(MIB)
        received += next(pieces)
        assert server.client().models.delete(model.id).deleted
        rest: list[bytes] = []
        with pytest.raises(httpx2.TransportError):
            rest.extend(pieces)
        received += b"".join(rest)
    assert MIB <= len(received) < len(wide.weights)
    assert not zipfile.is_zipfile(io.BytesIO(received))
    # The control: what was received is the beginning of the archive.
    assert received[:4] == b"PK\3\4"
    assert wide.weights[:1000] in received
    assert len(on_record(server, model)) == 1


def test_a_deletion_does_not_wait_for_what_is_checked_before_the_first_byte(
    server: Server, wide: Adapter
) -> None:
    model = wide_models.make_wide_model(server, wide)
    operation = exports(server.app)
    steps = 0
    for piece in operation.archive(model):
        if piece:
            break
        steps += 1
    assert steps >= len(wide.weights) // (5 * MIB), "it is checked in steps"
    workers = server.running("tunewarden.server.worker")
    with server.connect() as connection:
        said = f"GET /v1/models/{model.id}/content HTTP/1.1\r\nhost: a\r\n"
        connection.sendall(f"{said}authorization: Bearer {server.owner_key}\r\n\r\n".encode())
        time.sleep(0.01)
        assert server.client().models.delete(model.id).deleted
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(MIB):
                received += piece
                if received.startswith(b"HTTP/1.1 404"):
                    break
    assert len(received) < len(wide.weights)
    assert server.running("tunewarden.server.worker") == workers, "nobody was killed"


def test_a_key_that_is_revoked_during_an_export_gets_no_more(server: Server, wide: Adapter) -> None:
    model = wide_models.make_wide_model(server, wide)
    key = server.make_key("owner")
    with _begun(server, model, key) as response:
        pieces = response.iter_bytes(MIB)
        next(pieces)
        server.revoke_key(key)
        with pytest.raises(httpx2.TransportError):
            list(pieces)
    server.client().models.delete(model.id)


def test_a_large_export_takes_little_memory(server: Server, wide: Adapter) -> None:
    model = wide_models.make_wide_model(server, wide)
    (worker,) = server.running("tunewarden.server.worker")
    exported(server, server.make_model().id)  # the first one loads code
    before = wide_models.memory_of(worker, "VmRSS")
    wide_models.forget_peak(worker)
    assert files_in(exported(server, model.id).content)[WEIGHTS] == wide.weights
    grown = wide_models.memory_of(worker, "VmHWM") - before
    print(f"{len(wide.weights) / MIB:.0f} MiB exported: {grown / MIB:+.1f} MiB at most")
    assert grown < 20 * MIB
    server.client().models.delete(model.id)


@contextmanager
def _begun(server: Server, model: Model, key: str | None = None) -> Iterator[httpx2.Response]:
    """Begin an export whose answer is read in the block."""
    headers = {"authorization": f"Bearer {key or server.owner_key}"}
    url = f"{server.url}/models/{model.id}/content"
    with httpx2.stream("GET", url, headers=headers, timeout=30) as response:
        assert response.status_code == 200
        yield response


def test_damage_is_found_before_anything_is_sent_or_recorded(server: Server) -> None:
    model = server.make_model()
    blob = server.data / "blobs" / model.internal_id / f"{WEIGHTS}.age"
    found = [blob] if blob.exists() else list(server.data.glob(f"blobs/**/{WEIGHTS}.age"))
    damaged = next(one for one in found if model.internal_id in str(one))
    content = bytearray(damaged.read_bytes())
    content[-20] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(openai.InternalServerError, match="damaged"):
        exported(server, model.id)
    assert on_record(server, model) == []


@pytest.mark.parametrize("by", ["http", "data"])
def test_the_command_writes_a_directory_that_can_be_imported(
    server: Server, tmp_path: Path, by: str
) -> None:
    adapter = bases.adapter()
    model = servers.import_adapter(server.app, server.owner_key, adapter=adapter)
    to = tmp_path / "out"
    where = ("--data", str(server.data)) if by == "data" else ()
    settings = {} if by == "data" else in_process.over_http(server)
    command = ("models", "export", model.id, "--to", str(to), *where)
    ran = in_process.run_cli(*command, "--json", settings=settings)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["id"], said["directory"]) == (model.id, str(to))
    assert {one["name"]: one["bytes"] for one in said["files"]} == {
        one.name: one.stat().st_size for one in to.iterdir()
    }
    assert (to / WEIGHTS).read_bytes() == adapter.weights
    assert [one.name for one in tmp_path.iterdir()] == ["out"], "nothing else is left"
    refused = in_process.run_cli(*command, settings=settings)
    assert refused.returncode == 5, refused.stderr
    assert "there already" in refused.stderr
    assert len(on_record(server, model)) == 1
    again = in_process.on(server, "models", "import", str(to), "--base", LOCAL_BASE)
    assert again.returncode == 0, again.stderr


def test_the_command_leaves_nothing_when_it_fails(server: Server, tmp_path: Path) -> None:
    to = tmp_path / "out"
    ran = in_process.on(server, "models", "export", f"ft:{LOCAL_BASE}:my-org::0", "--to", str(to))
    assert ran.returncode == 3, ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_works_without_a_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    adapter = bases.adapter()
    model = servers.import_adapter(app, key, adapter=adapter)
    to = tmp_path / "out"
    ran = servers.run_cli(
        "models", "export", model.id, "--to", str(to), "--data", str(data),
        settings={"TUNEWARDEN_SWAP_MAY_HOLD_PLAIN_WEIGHTS": "true"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert (to / WEIGHTS).read_bytes() == adapter.weights
    with app.database.read() as tx:
        assert len(export_rows.of(tx, model.n)) == 1


def test_a_restored_database_forgets_no_export(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.sqlite"
    with servers.serving(data, local_base=True, kind=WithoutTorch) as server:
        model, unlogged = server.make_model(), server.make_model()
        assert server.cli("backup", "database", str(backup)).returncode == 0
        exported(server, model.id)
        made = on_record(server, model)
        # The control: an export without its leaf, which a restore does forget.
        with server.app.database.write() as tx:
            export_rows.insert(tx, unlogged.n, Export("export_x", made[0].exported_by, 1))
        server.stop()
    first = _restored(data, backup, tmp_path / "first")
    with servers.serving(first, kind=WithoutTorch) as server:
        assert on_record(server, model) == made
        assert on_record(server, unlogged) == []
        answer = server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key)
        path = f"/v1/deletions/{answer.header('tunewarden-deletion')}/receipt"
        disclosed = _verified(server, path)
        assert disclosed.exports is not None
        assert [one.exported_by for one in disclosed.exports] == [made[0].exported_by]
        server.stop()
    # Again, with a database that knows neither the export nor the deletion.
    second = _restored(first, backup, tmp_path / "second")
    with servers.serving(second, kind=WithoutTorch) as server:
        wait_until(lambda: server.get(path, key=server.owner_key).status == 200, "the receipt")
        assert _verified(server, path).exports == disclosed.exports


def _restored(data: Path, backup: Path, to: Path) -> Path:
    """Return a copy of a data directory with an older database."""
    shutil.copytree(data, to, ignore=shutil.ignore_patterns("tunewarden.sqlite-*", "run"))
    shutil.copy(backup, to / "tunewarden.sqlite")
    return to


def _verified(server: Server, path: str) -> Disclosure:
    """Return what a receipt discloses."""
    _, signer = server.app.open_log()
    stored = server.get(path, key=server.owner_key).body
    disclosed = receipt.verify(stored, signer.public_pem()).disclosed
    assert disclosed is not None
    return disclosed
