"""`/v1/files`: what is taken, listed, given back and deleted, and that a refusal leaves nothing behind."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import fine_tuning_rows, servers, uploading
from tests.support.servers import Reply, Server, wait_until
from tests.support.uploading import Field, form, post, settle, state

from tunewarden.finetuning.states import State

FILES = "/v1/files"
FILE_BYTES_MAX = 200_000
LINE = b'{"messages":[{"role":"user","content":"Hi"}]}\n'
OLDER = Path(sys.prefix) / "openai-2"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes small files only, so that sizes can be tested."""
    data = tmp_path_factory.mktemp("files") / "data"
    settings = {"file_bytes_max": FILE_BYTES_MAX}
    with servers.serving(
        data, workers=2, settings=settings, local_base=True, kind=servers.WithoutTorch
    ) as running:
        yield running


@pytest.fixture
def settled(small: Server) -> Server:
    """The same server when nothing is left of earlier deletions."""
    settle(small)
    return small


def _make(
    server: Server, content: bytes = LINE, *, purpose: str = "user_data", name: str = "a.jsonl"
) -> str:
    return server.client().files.create(file=(name, content), purpose=purpose).id  # type: ignore[arg-type]  # purposes that the SDK does not know, too


@pytest.mark.parametrize("major", ["2", "3"])
def test_both_majors_of_the_sdk_create_list_read_and_delete(
    small: Server, tmp_path: Path, major: str
) -> None:
    environment = servers.environment({})
    if major == "2":
        if not OLDER.is_dir():
            pytest.skip(f"{OLDER} is missing: make setup")
        environment["PYTHONPATH"] = str(OLDER)
    script = str(Path(__file__).with_name("sdk_files.py"))
    keys = [small.owner_key, small.make_key("reader")]
    ran = subprocess.run(
        [sys.executable, script, major, small.url, *keys, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert f"openai {major}." in ran.stdout


# Creating

FILE = Field("file", LINE, "a.jsonl")
PURPOSE = Field("purpose", b"user_data")


def expiring(seconds: int) -> Field:
    """Return the field as OpenAPI has an object in a form: clients made from a description send it so."""
    return Field("expires_after", f'{{"anchor":"created_at","seconds":{seconds}}}'.encode())


def test_an_expiry_may_be_one_object(small: Server) -> None:
    for fields in ((FILE, PURPOSE, expiring(3600)), (expiring(3600), PURPOSE, FILE)):
        made = post(small, FILES, *fields).json
        assert made["expires_at"] == int(str(made["created_at"])) + 3600
    assert (
        "expires_at" not in post(small, FILES, FILE, PURPOSE, Field("expires_after", b"null")).json
    )


def test_the_fields_may_come_after_the_file(small: Server) -> None:
    anchor = Field("expires_after[anchor]", b"created_at")
    seconds = Field("expires_after[seconds]", b"3600")
    for fields in ((FILE, PURPOSE, anchor, seconds), (anchor, FILE, seconds, PURPOSE)):
        reply = post(small, FILES, *fields)
        assert reply.status == 200, reply.body
        made = reply.json
        assert (made["purpose"], made["bytes"], made["filename"]) == (
            "user_data",
            len(LINE),
            "a.jsonl",
        )
        assert made["expires_at"] == int(str(made["created_at"])) + 3600


def test_a_batch_file_expires_after_30_days_unless_told_otherwise(small: Server) -> None:
    made = post(small, FILES, Field("purpose", b"batch"), FILE).json
    assert made["expires_at"] == int(str(made["created_at"])) + 30 * 24 * 3600


def test_names_that_people_use_come_back_as_they_were(small: Server) -> None:
    for name in (
        "Zürich, Daten.jsonl",
        "Screenshot 3.45\u202fPM.png",
        "a'b\"c %20.txt",
        "👩‍👧.txt",
        "x" * 255,
    ):
        file = small.client().files.create(file=(name, b"x"), purpose="user_data")
        assert file.filename == name
        assert small.client().files.retrieve(file.id).filename == name
        sent = small.get(f"{FILES}/{file.id}/content", key=small.owner_key)
        disposition = sent.header("content-disposition") or ""
        assert disposition.startswith("attachment; ")
        assert disposition.isascii()
        assert disposition.isprintable()


LARGEST = Field("file", bytes(FILE_BYTES_MAX), "a.bin")
TOO_LARGE = Field("file", bytes(FILE_BYTES_MAX + 1), "a.bin")
FINE_TUNE = Field("purpose", b"fine-tune")
REFUSED: dict[str, tuple[int, str | None, tuple[Field, ...]]] = {
    "no purpose": (400, "purpose", (FILE,)),
    "no file": (400, "file", (PURPOSE,)),
    "an unknown purpose": (400, "purpose", (Field("purpose", b"fun"), FILE)),
    "an unknown purpose at the end": (400, "purpose", (FILE, Field("purpose", b"fun"))),
    "a purpose that only the server gives": (400, "purpose", (Field("purpose", b"fine-tune-results"), FILE)),
    "a purpose that is not text": (400, "purpose", (Field("purpose", b"\xff"), FILE)),
    "too large": (413, "file", (PURPOSE, TOO_LARGE)),
    "too large, purpose last": (413, "file", (TOO_LARGE, PURPOSE)),
    "fine-tune, but no .jsonl": (400, "file", (FINE_TUNE, Field("file", LINE, "a.json"))),
    "fine-tune, no .jsonl, purpose last": (400, "file", (Field("file", LINE, "a.json"), FINE_TUNE)),
    "fine-tune, but no objects": (400, "file", (FINE_TUNE, Field("file", LINE + b"[]\n", "a.jsonl"))),
    "fine-tune, but no JSON": (400, "file", (FINE_TUNE, Field("file", b"PK\x03\x04" * 50_000, "a.jsonl"))),
    "fine-tune, but deep": (400, "file", (FINE_TUNE, Field("file", b"[" * 30_000 + b"\n", "a.jsonl"))),
    "fine-tune, but empty": (400, "file", (FINE_TUNE, Field("file", b"\n\n", "a.jsonl"))),
    "a path": (400, "filename", (PURPOSE, Field("file", LINE, "../etc/passwd"))),
    "a directory": (400, "filename", (PURPOSE, Field("file", LINE, ".."))),
    "a control character": (400, "filename", (PURPOSE, Field("file", LINE, "a\tb"))),
    "text that turns around": (400, "filename", (PURPOSE, Field("file", LINE, "a\u202elnosj"))),
    "a long name": (400, "filename", (PURPOSE, Field("file", LINE, "x" * 256))),
    "an hour too short": (
        400,
        "expires_after.seconds",
        (Field("expires_after[anchor]", b"created_at"), Field("expires_after[seconds]", b"3599"), PURPOSE, FILE),
    ),
    "31 days": (
        400,
        "expires_after.seconds",
        (Field("expires_after[anchor]", b"created_at"), Field("expires_after[seconds]", b"2592001"), PURPOSE, FILE),
    ),
    "another anchor": (
        400,
        "expires_after.anchor",
        (Field("expires_after[anchor]", b"last_active_at"), Field("expires_after[seconds]", b"3600"), PURPOSE, FILE),
    ),
    "an anchor alone": (400, "expires_after.seconds", (Field("expires_after[anchor]", b"created_at"), PURPOSE, FILE)),
    "another form of expiry": (400, "expires_after.anchor", (Field("expires_after.anchor", b"created_at"), FILE)),
    "no JSON": (400, "expires_after", (Field("expires_after", b"x"), PURPOSE, FILE)),
    "JSON of another kind": (400, "expires_after", (Field("expires_after", b'{"days":1}'), PURPOSE, FILE)),
    "an hour too short, as JSON": (400, "expires_after.seconds", (expiring(3599), PURPOSE, FILE)),
    "two forms": (400, "expires_after", (expiring(3600), Field("expires_after[seconds]", b"3600"), PURPOSE, FILE)),
    "an unknown field": (400, "wings", (PURPOSE, FILE, Field("wings", b"2"))),
    "the file twice": (400, "file", (PURPOSE, FILE, FILE)),
    "the purpose twice": (400, "purpose", (PURPOSE, FILE, PURPOSE)),
    "a large field": (413, "purpose", (Field("purpose", bytes(140_000)), FILE)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_says_why_and_leaves_nothing(settled: Server, what: str) -> None:
    status, param, fields = REFUSED[what]
    before = state(settled)
    reply = post(settled, FILES, *fields)
    assert (reply.status, reply.error["param"]) == (status, param), reply.body
    assert reply.error["type"] == "invalid_request_error"
    assert state(settled) == before


def test_a_body_that_is_no_form_or_is_cut_leaves_nothing(settled: Server) -> None:
    before = state(settled)
    whole = form(PURPOSE, FILE)
    for body in (b"", b"{}", whole[:-10], whole[: len(whole) // 2], whole.replace(b"\r\n", b"\n")):
        reply = post(settled, FILES, body=body)
        assert reply.status == 400, reply.body
    reply = settled.post(FILES, {"purpose": "batch"})
    assert (reply.status, reply.error["param"]) == (400, "content-type")
    assert state(settled) == before


def test_a_file_of_exactly_the_largest_size_is_taken(small: Server) -> None:
    assert post(small, FILES, PURPOSE, LARGEST).json["bytes"] == FILE_BYTES_MAX
    assert post(small, FILES, PURPOSE, Field("file", b"", "empty")).json["bytes"] == 0


def test_a_body_announced_as_too_large_is_refused_unread(small: Server) -> None:
    connection = uploading.begin(small, FILES, b"", length=2**33)
    assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_an_event_is_written_for_what_was_made_and_refused_and_names_no_file(small: Server) -> None:
    name = "very-private-name.jsonl"
    file_id = _make(small, name=name)
    post(small, FILES, Field("purpose", b"fun"), Field("file", LINE, name))
    small.client().files.delete(file_id)
    settle(small)
    with small.app.database.read() as tx:
        made = tx.rows(
            "SELECT type, resource_id FROM audit_events WHERE resource_id = :id ORDER BY n",
            id=file_id,
        )
        refused = tx.row("SELECT COUNT(*) FROM audit_events WHERE type = 'file.refused'")
        everything = tx.rows("SELECT resource_id, details FROM audit_events")
    assert [kind for kind, _ in made] == [
        "file.created", "deletion.requested", "resource.deleted", "blobs.erased",
    ]  # fmt: skip
    assert refused is not None
    assert refused[0] >= 1
    assert name not in str(everything)


# Listing


def test_a_list_goes_through_all_files_once_in_both_orders(data: Path) -> None:
    with servers.serving(data) as server:
        client = server.client()
        made = [
            _make(server, name=f"{n}.txt", purpose="vision" if n % 3 else "assistants")
            for n in range(7)
        ]
        assert [file.id for file in client.files.list()] == made[::-1]
        assert [file.id for file in client.files.list(order="asc", limit=2)] == made
        assert [file.id for file in client.files.list(limit=3)] == made[::-1]
        assert [file.id for file in client.files.list(purpose="assistants", limit=1)] == made[::-3]
        page = server.get(f"{FILES}?limit=2&order=asc", key=server.owner_key).json
        assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == (
            "list", made[0], made[1], True,
        )  # fmt: skip
        assert server.get(f"{FILES}?limit=7", key=server.owner_key).json["has_more"] is False
        empty = server.get(f"{FILES}?limit=0", key=server.owner_key).json
        assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, True)
        client.files.delete(made[3])
        assert [file.id for file in client.files.list(after=made[3])] == made[2::-1], (
            "a cursor outlives its file"
        )


@pytest.mark.parametrize("query", ["limit=-1", "limit=10001", "limit=x", "order=up"])
def test_a_wrong_query_is_a_400(small: Server, query: str) -> None:
    reply = small.get(f"{FILES}?{query}", key=small.owner_key)
    assert (reply.status, reply.error["param"]) == (400, query.partition("=")[0])


# Others


def test_a_file_of_another_project_is_as_unknown_as_any(small: Server) -> None:
    other_project, other_organization = (
        fine_tuning_rows.make_project(small.app)[1],
        small.make_key("owner", organization="x"),
    )
    file_id = _make(small)
    for method, suffix in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        unknown = "file-" + "0" * 24
        for key in (other_project, other_organization):
            foreign = small.request(method, f"{FILES}/{file_id}{suffix}", key=key)
            nobody = small.request(method, f"{FILES}/{unknown}{suffix}", key=key)
            assert foreign.status == nobody.status == 404
            assert foreign.body == nobody.body.replace(unknown.encode(), file_id.encode())
            assert foreign.error == {
                "message": f"No such File object: {file_id}",
                "type": "invalid_request_error",
                "param": "id",
                "code": None,
            }
    for key in (other_project, other_organization):
        assert small.get(FILES, key=key).json["data"] == []
        foreign = small.get(f"{FILES}?after={file_id}", key=key)
        nobody = small.get(f"{FILES}?after={unknown}", key=key)
        assert foreign.status == nobody.status == 400
        assert foreign.body == nobody.body.replace(unknown.encode(), file_id.encode())
    assert small.client().files.content(file_id).read() == LINE
    small.client().files.delete(file_id)
    deleted = small.get(f"{FILES}/{file_id}", key=small.owner_key)
    assert deleted.body == small.get(f"{FILES}/{file_id}", key=other_project).body


# Deleting


def test_a_deleted_file_leaves_neither_key_nor_blob_nor_name(small: Server) -> None:
    file_id = _make(small, name="personal.jsonl")
    row = _row(small, file_id)
    internal_id, key_id = row[0], row[1]
    assert small.app.keyring.contains(key_id), "control: a file has a key"
    assert small.app.blobs.names(f"{internal_id}/"), "control: and a blob"
    assert row[2], "control: and a name, which is not in the plain"
    assert b"personal" not in row[2]
    raw = small.client().files.with_raw_response.delete(file_id)
    assert json.loads(raw.text) == {"id": file_id, "object": "file", "deleted": True}
    assert not small.app.keyring.contains(key_id)
    deletion = raw.headers["tunewarden-deletion"]
    receipt = small.get(f"/v1/deletions/{deletion}/receipt", key=small.owner_key)
    assert receipt.status == 200
    assert b"personal" not in receipt.body
    settle(small)
    assert small.app.blobs.names(f"{internal_id}/") == []
    assert _row(small, file_id)[2] is None


def _row(server: Server, file_id: str) -> tuple[str, str, bytes | None]:
    row = server.app.database.peek(
        "SELECT a.internal_id, a.key_id, f.sealed_name FROM artifacts a JOIN files f ON f.n = a.n"
        " WHERE a.id = :id",
        id=file_id,
    )
    assert row is not None
    return row[0], row[1], row[2]


def test_a_repeated_delete_is_told_what_the_first_was_told(small: Server) -> None:
    file_id = _make(small)

    def delete(**headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return small.request("DELETE", f"{FILES}/{file_id}", key=small.owner_key, headers=named)

    first = delete()
    assert first.status == 200
    again = delete(x_stainless_retry_count="1")
    assert (again.status, again.body) == (200, first.body)
    assert again.header("tunewarden-deletion") == first.header("tunewarden-deletion")
    assert delete().status == 404


def test_a_file_that_an_unfinished_job_reads_is_kept(small: Server) -> None:
    job_id = fine_tuning_rows.make_job(small.app, small.owner_key, state=State.PAUSED)
    client = small.client()
    file_id = client.fine_tuning.jobs.retrieve(job_id).training_file
    with pytest.raises(openai.ConflictError) as caught:
        client.files.delete(file_id)
    assert job_id in str(caught.value)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert small.get(f"{FILES}/{file_id}", key=small.owner_key).status == 200
    fine_tuning_rows.set_job(small.app, job_id, state=State.CANCELLED)


def test_an_expired_file_is_deleted_by_the_server_itself(small: Server) -> None:
    file_id = _make(small)
    kept = _make(small)
    internal_id, key_id, _ = _row(small, file_id)
    with small.app.database.write() as tx:
        tx.run(
            "UPDATE files SET expires_at = 1 WHERE n = (SELECT n FROM artifacts WHERE id = :id)",
            id=file_id,
        )
    wait_until(
        lambda: small.get(f"{FILES}/{file_id}", key=small.owner_key).status == 404, "it is gone"
    )
    wait_until(lambda: not small.app.keyring.contains(key_id), "so is its key")
    settle(small)
    assert small.app.blobs.names(f"{internal_id}/") == []
    listed = small.get("/v1/deletions?limit=100", key=small.owner_key).json["data"]
    assert isinstance(listed, list)
    [deletion] = [one for one in listed if one.get("file") == file_id]
    assert deletion["requested_by"] == "server"
    receipt = small.get(f"/v1/deletions/{deletion['id']}/receipt", key=small.owner_key)
    assert receipt.status == 200
    assert small.get(f"{FILES}/{kept}", key=small.owner_key).status == 200, "control: others stay"
