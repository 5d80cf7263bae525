"""A full disk (I20): what grows is refused once and for all, deletions and revocations are answered."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.chaos import fake_engine_server
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support import mounts
from tests.support.servers import Server, WithoutTorch, serving, wait_until
from tests.support.uploading import Field, post

from tunewarden.cli.exit_codes import ExitCode

REPOSITORY = Path(__file__).parents[2]
FULL = (507, "insufficient_storage", "false")


IS_TORTURE = bool(os.environ.get("TUNEWARDEN_TORTURE"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounts.small_disk(tmp_path / "data", "tmpfs") as mounted:
        yield mounted


# Not copy-on-write ones: they write nothing in place (docs/decisions/0016).
@pytest.fixture(params=["tmpfs", "ext4", "xfs"])
def any_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with mounts.small_disk(tmp_path / "data", request.param) as mounted:
        yield mounted


def upload(server: Server, size: int, key: str | None = None) -> object:
    reply = post(
        server,
        "/v1/files",
        Field("purpose", b"user_data"),
        Field("file", b"x" * size, "f.bin"),
        key=key,
    )
    if reply.status == 200:
        return reply.json["id"]
    return reply.status, reply.error["code"], reply.header("x-should-retry")


def fill_by_uploads(server: Server, key: str | None = None) -> list[str]:
    """Upload ever smaller files until not one byte more is accepted; return their ids."""
    ids = []
    for size in (4_000_000, 300_000, 1000, 1):
        while isinstance(found := upload(server, size, key), str):
            ids.append(found)
        assert found == FULL
    return ids


def delete(server: Server, file_id: str, key: str | None = None) -> int:
    return server.request("DELETE", f"/v1/files/{file_id}", key=key or server.owner_key).status


def test_an_organization_that_fills_the_disk_is_refused_at_the_floor(disk: Path) -> None:
    with serving(disk, local_base=True, kind=WithoutTorch) as server:
        other = server.make_key("owner", organization="others")
        kept = upload(server, 1000, other)
        assert isinstance(kept, str)
        model = server.make_model(key=other)
        ids = fill_by_uploads(server)
        print(f"{len(ids)} files, {mounts.free_bytes(disk)} bytes free")
        assert mounts.free_bytes(disk) > 2_000_000  # the floor is a twentieth
        crumb = disk / "of-another-tenant"
        crumb.write_bytes(bytes(100_000))  # what was refused last has been erased
        reply = server.get("/readyz")
        assert (reply.status, reply.json["disk"]) == (200, "below the floor")
        assert "FAIL disk: below the floor" in server.cli("doctor").stdout
        # Everything that grows is refused, of every organization.
        wanted = {"bytes": 1, "filename": "f", "mime_type": "text/plain", "purpose": "user_data"}
        assert server.post("/v1/uploads", wanted).status == 507
        job = {"model": "tiny-base", "training_file": ids[0]}
        assert server.post("/v1/fine_tuning/jobs", job).status in {400, 507}
        assert server.cli("keys", "create", "--role", "owner").returncode == ExitCode.UNAVAILABLE
        # What there is can be seen and deleted, by others as well.
        for key, file_id in ((server.owner_key, ids[0]), (other, kept)):
            assert server.get(f"/v1/files/{file_id}", key=key).status == 200
            assert server.get(f"/v1/files/{file_id}/content", key=key).status == 200
        assert delete(server, "file-unknown") == 404
        assert server.request("DELETE", f"/v1/models/{model.id}", key=other).status == 200
        assert [delete(server, one) for one in ids] == [200] * len(ids)
        assert delete(server, kept, other) == 200
        crumb.unlink()
        # What deletions free is there when the file system and the reserves have settled.
        wait_until(lambda: isinstance(upload(server, 1000), str), "there is room again")
        report = server.cli("doctor", "--deep").stdout
        assert "ok   disk: ok" in report
        assert "ok   remnants: none in any place" in report


def test_a_stock_client_sends_one_request_and_no_more(disk: Path) -> None:
    with serving(disk) as server:
        with mounts.filled(disk), CuttingProxy(server.address, lose=0) as proxy:
            client = openai.OpenAI(base_url=proxy.url, api_key=server.owner_key)
            with pytest.raises(openai.APIStatusError) as refused:
                client.files.create(file=("f.jsonl", b"{}\n" * 1000), purpose="user_data")
        assert b"".join(proxy.requests).count(b"POST /v1/files") == 1
        assert refused.value.status_code == 507
        assert refused.value.response.headers["x-should-retry"] == "false"
        assert "Delete files or models" in refused.value.message
        assert isinstance(upload(server, 1000), str)


def test_a_runner_on_a_full_disk_says_so_once(disk: Path) -> None:
    with serving(disk, local_base=True, kind=WithoutTorch) as server:
        server.make_model()
        with mounts.filled(disk):
            before = len(server.log().splitlines())
            wait_until(lambda: server.get("/readyz").json["disk"] != "ok", "it is seen")
            upload(server, 10)
            with pytest.raises(AssertionError):
                wait_until(lambda: False, "some seconds have passed", 4)
        lines = server.log().splitlines()[before:]
        assert "Traceback" not in server.log()
        assert len(lines) <= 3, lines


def _is_reserved(server: Server) -> bool:
    """Whether the runner has set everything aside."""
    app = server.app
    free = app.database.peek("PRAGMA freelist_count")
    tile = server.data / "log" / "tile" / "entries"
    return (
        app.ballast.missing_bytes() == 0
        and bool(free and free[0] > 500)
        and tile.is_dir()
        and bool(list((server.data / "run").glob("*.spare")))
        and (server.data / "keyring" / "log.mark").exists()
        and all((shard / "ring.spare").exists() for shard in (server.data / "keyring").glob("0*"))
    )


DELETED = 400 if IS_TORTURE else 60


def test_deletions_and_revocations_go_on_without_one_free_byte(any_disk: Path) -> None:
    disk = any_disk
    with fake_engine_server.serving(disk, workers=2) as server:
        other = server.make_key("owner", organization="others")
        revoked = server.make_key("owner", organization="others")
        model = server.make_model(key=other)
        ids = [upload(server, 300, other) for _ in range(DELETED)]
        wait_until(lambda: _is_reserved(server), "room is set aside", 60)
        with mounts.filled(disk) as filler:
            assert upload(server, 1) == FULL
            before = filler.seized
            wait_until(lambda: mounts.is_full(disk), "the disk is full")
            answers = Counter(delete(server, str(one), other) for one in ids)
            found = server.request("DELETE", f"/v1/models/{model.id}", key=other)
            assert found.status == 200, server.log()
            key_id = f"key_{revoked.split('-')[2]}"
            assert server.cli("keys", "revoke", key_id).returncode == 0
            assert server.get("/v1/files", key=revoked).status == 401
            unused = server.app.ballast.missing_bytes()
            print(
                f"full-disk {dict(answers)} of {DELETED} deletions, ballast used {unused} bytes,"
                f" seized meanwhile {filler.seized - before} bytes"
            )
            assert answers == {200: DELETED}, server.log()
            settled = "SELECT 1 FROM deletions WHERE blobs_erased_at IS NULL"
            wait_until(lambda: server.app.database.peek(settled) is None, "D9 goes on", 60)
        wait_until(lambda: isinstance(upload(server, 1000), str), "there is room again", 60)
        report = server.cli("doctor", "--deep").stdout
        assert "ok   database: ok" in report
        assert "ok   remnants: none in any place" in report


def test_control_without_room_set_aside_no_deletion_succeeds(
    any_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = any_disk
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests" / "fakes" / "no_reserve"))
    # Nothing counts as missing: without its ballast the server would refuse to store anything.
    with serving(disk, settings={"disk_floor_bytes": 1}) as server:
        ids = file_ids(server, 3)
        with mounts.filled(disk):
            statuses = [delete(server, one) for one in ids]
        print(f"full-disk control: {statuses}")
        assert 200 not in statuses
        wait_until(lambda: isinstance(upload(server, 1000), str), "there is room again", 60)
        assert server.client().files.delete(file_ids(server, 1)[0]).deleted


def file_ids(server: Server, count: int) -> list[str]:
    found = [upload(server, 300) for _ in range(count)]
    assert all(isinstance(one, str) for one in found), found
    return [str(one) for one in found]
