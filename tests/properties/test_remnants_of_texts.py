"""What is left of a deleted file's texts: its lines, its name, and what was said about its jobs (I18).

Canaries stand wherever a client may write something, in what is accepted and in what is refused. Then
every byte of the data directory, the logs, a backup and the answers of the API are looked through.
"""

import json
import os
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from tests.cli.test_fine_tune_commands import FakeTrainerServer
from tests.support import bases, mounts, servers
from tests.support.jobs import Workplace
from tests.support.servers import Reply, Server
from tests.support.uploading import Field, post, settle

from tunewarden.app import open_app
from tunewarden.deletion.requests import Attempt
from tunewarden.finetuning import jobs
from tunewarden.finetuning.metadata import opened
from tunewarden.ids import token
from tunewarden.recovery_at_start import recover
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rules import Description

ROUNDS = 20 if os.environ.get("TUNEWARDEN_TORTURE") else 1
DELETES = 500 if os.environ.get("TUNEWARDEN_TORTURE") else 5
FILES, UPLOADS, JOBS = "/v1/files", "/v1/uploads", "/v1/fine_tuning/jobs"
PURPOSE = Field("purpose", b"fine-tune")


class Canaries:
    """Texts that are nowhere else. Each has a word for where it was put."""

    def __init__(self) -> None:
        self._root = f"Qz{token(8)}"
        self.count = 0

    def __call__(self, place: str) -> str:
        self.count += 1
        return f"{self._root}{place}{self.count}"

    def found(self, *roots: Path) -> list[str]:
        """Where any of them is, in the bytes of all files below these places, or in a name."""
        needle = self._root.lower().encode()
        paths = [path for root in roots for path in (root, *root.rglob("*"))]
        named = [f"{path} by name" for path in paths if needle in str(path).lower().encode()]
        return named + [
            f"{path}: {_around(content, needle)!r}"
            for path in paths
            if path.is_file() and needle in (content := path.read_bytes().lower())
        ]

    def said(self, *replies: bytes) -> list[bytes]:
        """Which answers hold any of them."""
        return [reply for reply in replies if self._root.encode() in reply]


def _around(content: bytes, needle: bytes) -> bytes:
    at = content.index(needle)
    return content[max(0, at - 40) : at + 40]


class Client:
    """Does everything that leaves a text, on a real server."""

    def __init__(self, server: Server, canary: Canaries) -> None:
        self._server = server
        self._canary = canary
        self.files: list[str] = []
        self.jobs: list[str] = []

    def do_all(self) -> None:
        good, bad = self._good(), self._bad()
        self._job(self._file(good), suffix="fine")
        self._job(self._file(bad))
        self._job(self._file(good), validation_file=self._file(bad))
        self._job(self._file(good.replace(b'"assistant"', b'"user"')))
        self._uploads(good)
        self._refused()

    def answers(self) -> Iterator[Reply]:
        """Everything that the API tells of files, jobs, models and deletions."""
        key = self._server.owner_key

        def get(path: str) -> Reply:
            return self._server.get(path, key=key)

        yield get(FILES)
        yield get(JOBS)
        yield get("/v1/models")
        for job in self.jobs:
            yield get(f"{JOBS}/{job}")
            yield get(f"{JOBS}/{job}/events?limit=1000")
            yield get(f"{JOBS}/{job}/checkpoints")
        yield (deletions := get("/v1/deletions?limit=100"))
        for one in deletions.json["data"]:
            yield get(f"/v1/deletions/{one['id']}")
            yield get(f"/v1/deletions/{one['id']}/receipt")

    def delete_all(self) -> None:
        """Delete the files, and the models of the jobs."""
        client = self._server.client()
        for job in self.jobs:
            if model := client.fine_tuning.jobs.retrieve(job).fine_tuned_model:
                client.models.delete(model)
        for file in client.files.list():
            client.files.delete(file.id)
        settle(self._server)

    def wait(self) -> list[str]:
        """Wait until the jobs have ended; return how."""
        client = self._server.client()
        ended = {"succeeded", "failed", "cancelled"}
        jobs = client.fine_tuning.jobs
        for job in self.jobs:
            servers.wait_until(
                lambda job=job: (found := jobs.retrieve(job)).status in ended and found.finished_at,  # type: ignore[misc]  # mypy infers no lambda with a default
                "the job ends",
                60,
            )
        return [jobs.retrieve(job).status for job in self.jobs]

    def _good(self) -> bytes:
        """Lines that a job may train on, with canaries in all free texts."""
        canary = self._canary
        call = {
            "id": canary("call"),
            "type": "function",
            "function": {"name": canary("function"), "arguments": json.dumps({canary("k"): 1})},
        }
        turns: list[object] = [
            {"role": "user", "content": canary("content"), "name": canary("name")},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": canary("result")},
            {"role": "assistant", "content": canary("answer")},
        ]
        tool = {
            "type": "function",
            "function": {"name": canary("tool"), "description": canary("d")},
        }
        return (json.dumps({"messages": turns, "tools": [tool]}) + "\n").encode() * 12

    def _bad(self) -> bytes:
        """Lines of which each is wrong in another way."""
        canary = self._canary
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        tool = {"role": "tool", "content": "x", "tool_call_id": canary("call")}
        wrong = [
            {"messages": turns, canary("key"): 1},
            {"messages": [{**turns[0], canary("key"): 1}, turns[1]]},
            {"messages": [turns[0], tool, turns[1]]},
            {"messages": [{**turns[0], "role": canary("role")}, turns[1]]},
            {"messages": [{**turns[0], "content": [{"type": canary("type")}]}, turns[1]]},
        ]
        return b"".join(json.dumps(one).encode() + b"\n" for one in wrong)

    def _file(self, content: bytes) -> str:
        name = f"{self._canary('file')}.jsonl"
        made = post(self._server, FILES, PURPOSE, Field("file", content, name)).json
        assert made["filename"] == name
        self.files.append(str(made["id"]))
        return self.files[-1]

    def _job(self, training: str, **fields: str) -> None:
        metadata = {self._canary("mk"): self._canary("mv")}
        made = self._server.post(
            JOBS,
            {
                "model": servers.LOCAL_BASE,
                "training_file": training,
                "metadata": metadata,
                **fields,
            },
        ).json
        assert made["metadata"] == metadata
        self.jobs.append(str(made["id"]))

    def _uploads(self, content: bytes) -> None:
        """One that is completed, one that is cancelled, one whose sum is wrong and stays."""
        for end in ("complete", "cancel", "wrong sum"):
            name = f"{self._canary('upload')}.jsonl"
            asked = {
                "filename": name,
                "purpose": "fine-tune",
                "bytes": len(content),
                "mime_type": "application/jsonl",
            }
            upload = self._server.post(UPLOADS, asked).json
            assert upload["filename"] == name
            path = f"{UPLOADS}/{upload['id']}"
            part = post(self._server, f"{path}/parts", Field("data", content, name)).json
            fields = {"part_ids": [part["id"]]}
            if end == "cancel":
                done = self._server.post(f"{path}/cancel", {}).json
            elif end == "complete":
                done = self._server.post(f"{path}/complete", fields).json
                assert done["file"]["filename"] == name
            else:
                done = self._server.post(f"{path}/complete", {**fields, "md5": "0" * 32}).json
                assert "error" in done
                done = self._server.post(f"{path}/cancel", {}).json
            assert done["filename"] == name

    def _import(self) -> list[Field]:
        """An adapter whose configuration cannot be taken."""
        config = bases.adapter_config(peft_type=self._canary("type"))
        return [
            Field("base", servers.LOCAL_BASE.encode()),
            Field("adapter_config", config, "adapter_config.json"),
            Field("adapter_model", bases.adapter().weights, "adapter_model.safetensors"),
        ]

    def _refused(self) -> None:
        canary, server = self._canary, self._server
        text = Field("file", canary("content").encode(), f"{canary('f')}.jsonl")
        path = Field("file", b"x", f"a/{canary('f')}.jsonl")
        twice = Field(canary("field"), b"x")
        wrong = Field("purpose", canary("purpose").encode())
        refused = [
            post(server, FILES, PURPOSE, text),
            post(server, FILES, PURPOSE, path),
            post(server, FILES, twice, twice),
            post(server, FILES, wrong, text),
            post(server, "/v1/models", *self._import()),
            server.request("DELETE", f"{FILES}/{canary('f')}.jsonl", key=server.owner_key),
            server.get(f"{FILES}/{canary('f')}", key=server.owner_key),
            server.post(JOBS, {"model": canary("model"), "training_file": canary("file")}),
            server.post(JOBS, {canary("parameter"): canary("value")}),
        ]
        assert {reply.status for reply in refused} <= {400, 404}


def test_no_text_of_a_deleted_file_is_left_anywhere(tmp_path: Path) -> None:
    data = tmp_path / "data"
    canary = Canaries()
    servers.prepare_local_base(data)
    server = FakeTrainerServer(data, workers=2, settings={"training_jobs_max": 4})
    places = [data, server.scratch, server.tmp, tmp_path / "data.stdout", tmp_path / "data.stderr"]
    try:
        client = Client(server, canary)
        for _ in range(ROUNDS):
            client.do_all()
        outcomes = client.wait()
        assert outcomes[:4] == ["succeeded", "failed", "failed", "failed"]
        assert canary.said(*(reply.body for reply in client.answers())), "control: they are shown"
        assert canary.found(*places) == [], "sealed from the first byte on"
        client.delete_all()
        assert canary.said(*(reply.body for reply in client.answers())) == []
        backup = server.cli("backup", "database", str(tmp_path / "backup.sqlite"))
        assert backup.returncode == 0
        doctor = server.cli("doctor", "--deep")
        assert "none in any place" in doctor.stdout, doctor.stdout
        assert canary.found(*places, tmp_path / "backup.sqlite") == []
        for name in (canary("control"), ""):
            with server.app.database.write() as tx:
                tx.run("UPDATE uploads SET filename = :name", name=name)
        assert canary.found(data), "control: what a row held for a moment in the plain is found"
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
    print(
        f"{canary.count} canaries in {ROUNDS} rounds, {len(outcomes)} jobs: 0 found; control found"
    )


def test_no_text_of_a_deleted_file_is_left_on_the_medium(medium: tuple[Path, Path]) -> None:
    mount, image = medium
    place, canary = Workplace(mount), Canaries()
    app, caller = place.app, place.caller
    for _ in range(DELETES):
        content = BytesIO(canary("content").encode())
        described = Description(f"{canary('file')}.txt", "user_data", None)
        file = app.files.create(caller, content, lambda: described)  # noqa: B023  called at once
        assert app.files.retrieve(caller, file.id).filename == described.filename
        app.executor.delete(caller, ArtifactKind.FILE, file.id, Attempt())
    assert app.executor.resume() == 0
    os.sync()
    assert canary.found(image) == []
    (mount / "plain").write_text(canary("control"))
    os.sync()
    (mount / "plain").unlink()
    os.sync()
    assert canary.found(image), "control: what was stored in the plain is found once it is unlinked"
    print(f"{canary.count} canaries, {DELETES} deletes: 0 on the medium; control found")


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a mounted, fresh ext4 and the image file below it."""
    with mounts.fresh_ext4(tmp_path, 64) as mounted:
        yield mounted


def test_what_an_older_version_wrote_in_the_plain_is_sealed_at_the_next_start(
    tmp_path: Path,
) -> None:
    canary = Canaries()
    place = Workplace(tmp_path)
    files = [place.file() for _ in range(40)]
    job = place.job(files[0])
    names = {file: f"{canary('file')}.jsonl" for file in files}
    metadata = {"k": canary("metadata")}
    _make_older(place, names, metadata, f"Line 12: unrecognized key '{canary('key')}'")
    assert canary.found(place.config.data), "control: it is there in the plain"
    app = open_app(place.config, migrate=True)
    assert app.database.must_be_rewritten()
    recover(app)
    assert not app.database.must_be_rewritten()
    for file, name in names.items():
        assert app.files.retrieve(place.caller, file).filename == name
    [named] = opened(app.keyring, [jobs.retrieve(app.database, place.caller, job.id)])
    found = named.job
    assert found.metadata == metadata
    assert found.error is not None
    assert found.error["code"] == "invalid_training_file"
    assert canary.found(place.config.data) == []
    app.executor.delete(place.caller, ArtifactKind.FILE, files[1], Attempt())
    assert place.remnants() == []
    shutil.rmtree(tmp_path / "scratch")


def _make_older(
    place: Workplace, names: dict[str, str], metadata: dict[str, str], problem: str
) -> None:
    """Take the database back to what version 0.1 would have written."""
    message = f"The job failed due to an invalid training file. Invalid file format. {problem}"
    error = {"code": "invalid_training_file", "message": message, "param": "training_file"}
    with place.app.database.write() as tx:
        for file, name in names.items():
            tx.run(
                "UPDATE files SET filename = :name WHERE n = (SELECT n FROM artifacts WHERE id = :id)",
                name=name,
                id=file,
            )
        tx.run(
            "UPDATE jobs SET metadata = :metadata, error = :error, status = 'failed', finished_at = 1",
            metadata=json.dumps(metadata),
            error=json.dumps(error),
        )
        tx.run(
            "INSERT INTO job_events (id, job_n, created_at, level, type, message)"
            " SELECT 'old', n, 1, 'error', 'message', :message FROM jobs",
            message=f"The job failed: {message}",
        )
        for table, column in (
            ("files", "sealed_name"),
            ("uploads", "sealed_name"),
            ("jobs", "sealed_metadata"),
        ):
            tx.run(f"ALTER TABLE {table} DROP COLUMN {column}")
        tx.run("DELETE FROM migrations WHERE version = 3")
