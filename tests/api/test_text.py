"""Text that cannot be stored or sent: lone surrogates and NUL are refused wherever a client writes text."""

import json
from collections.abc import Iterator

import pytest
from tests.support import bases, lone_worker
from tests.support import fine_tuning_rows as rows
from tests.support.lone_worker import LoneWorker
from tests.support.servers import LOCAL_BASE, Reply
from tests.support.uploading import Field, post

JOBS = "/v1/fine_tuning/jobs"
UPLOADS = "/v1/uploads"
LISTS = ("/v1/models", "/v1/files", JOBS, "/v1/deletions")
# As JSON writes it, as a form or a percent-encoding does.
UNFIT = {"surrogate": (r"\ud800", b"\xed\xa0\x80"), "nul": (r"\u0000", b"\0")}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneWorker]:
    with lone_worker.serving(tmp_path_factory.mktemp("text") / "data") as running:
        yield running


def _send(worker: LoneWorker, path: str, body: str) -> Reply:
    headers = {"content-type": "application/json"}
    return worker.request(
        "POST", path, key=worker.owner_key, headers=headers, body=body.encode("ascii")
    )


def _refused(reply: Reply, param: str | None) -> None:
    assert reply.status == 400, reply.body
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] == param, reply.body


def _lists_work(worker: LoneWorker) -> None:
    for path in LISTS:
        assert worker.get(path, key=worker.owner_key).status == 200, path


@pytest.mark.parametrize("kind", UNFIT)
def test_every_field_of_a_json_body_is_refused_by_name(worker: LoneWorker, kind: str) -> None:
    bad = UNFIT[kind][0]
    file = rows.make_file(worker.app, worker.owner_key)
    job: dict[str, object] = {"model": LOCAL_BASE, "training_file": file}
    upload: dict[str, object] = {
        "bytes": 1, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data",
    }  # fmt: skip
    permissions = "/v1/fine_tuning/checkpoints/x/permissions"
    # The path, what else stands in the body, the parameter, its value around a mark.
    cases: list[tuple[str, dict[str, object], str, object]] = [
        *((JOBS, job, name, "x@") for name in ("model", "training_file", "validation_file", "suffix")),
        (JOBS, job, "metadata", {"k": "@"}),
        (JOBS, job, "metadata", {"@": "v"}),
        (JOBS, job, "method", {"type": "@"}),
        (JOBS, job, "hyperparameters", {"n_epochs": "@"}),
        (JOBS, job, "integrations", [{"type": "@"}]),
        *((UPLOADS, upload, name, "x@") for name in ("filename", "mime_type", "purpose")),
        (UPLOADS, upload, "expires_after", {"anchor": "@", "seconds": 3600}),
        (f"{UPLOADS}/x/complete", {}, "part_ids", ["@"]),
        (f"{UPLOADS}/x/complete", {"part_ids": []}, "md5", "@"),
        (permissions, {}, "project_ids", ["@"]),
        ("/v1/chat/completions", {"messages": []}, "model", "x@"),
        ("/v1/completions", {"prompt": "x"}, "model", "x@"),
        ("/v1/embeddings", {"input": "x"}, "model", "@"),
        ("/v1/responses", {"input": "x"}, "model", "@"),
    ]  # fmt: skip
    for path, others, name, value in cases:
        body = json.dumps({**others, name: value}).replace("@", bad)
        _refused(_send(worker, path, body), name)
    # A key that is no text is not repeated in `param`.
    _refused(_send(worker, JOBS, json.dumps({**job, "@": 1}).replace("@", bad)), None)
    _lists_work(worker)


@pytest.mark.parametrize("kind", UNFIT)
def test_every_field_of_a_form_is_refused_by_name(worker: LoneWorker, kind: str) -> None:
    bad = UNFIT[kind][1]
    adapter = bases.adapter()
    files = [
        Field("adapter_config", adapter.config, "c"),
        Field("adapter_model", adapter.weights, "w"),
    ]
    file, purpose = Field("file", b"x", "a.txt"), Field("purpose", b"user_data")
    expiry = "expires_after[anchor]", "expires_after[seconds]"
    cases = [
        ("/v1/models", "base", [Field("base", b"x" + bad), *files]),
        ("/v1/models", "suffix", [Field("base", LOCAL_BASE.encode()), Field("suffix", bad), *files]),
        ("/v1/files", "purpose", [Field("purpose", b"x" + bad), file]),
        ("/v1/files", expiry[0], [purpose, Field(expiry[0], bad), Field(expiry[1], b"3600"), file]),
        ("/v1/files", expiry[1], [purpose, Field(expiry[0], b"created_at"), Field(expiry[1], bad), file]),
    ]  # fmt: skip
    for path, name, fields in cases:
        _refused(post(worker, path, *fields), name)
    filename = (b"a" + bad).decode(errors="surrogateescape")
    named = post(worker, "/v1/files", purpose, Field("file", b"x", filename))
    _refused(named, "filename" if kind == "nul" else "file")
    _lists_work(worker)


@pytest.mark.parametrize("sent", ["%ED%A0%80", "%FF", "a%00b"])
def test_a_query_is_refused_by_name(worker: LoneWorker, sent: str) -> None:
    for path, name in (
        ("/v1/models", "after"),
        ("/v1/files", "purpose"),
        ("/v1/files", "after"),
        ("/v1/files", "order"),
        (JOBS, "after"),
        (JOBS, "metadata[k]"),
        ("/v1/deletions", "after"),
        ("/v1/fine_tuning/checkpoints/x/permissions", "project_id"),
    ):
        _refused(worker.get(f"{path}?{name}={sent}", key=worker.owner_key), name)


def test_a_surrogate_that_an_earlier_version_stored_spoils_no_answer(worker: LoneWorker) -> None:
    job = rows.make_job(worker.app, worker.owner_key)
    stored = r'{"k": "a\ud800b", "\udfff": "\u0000", "\ud83d\ude00": "ü"}'
    rows.set_job(worker.app, job, metadata=stored)
    listed = worker.get(JOBS, key=worker.owner_key)
    assert listed.status == 200
    # What the SDK gets, and any strict reader of JSON.
    found = worker.client().fine_tuning.jobs.retrieve(job)
    assert found.metadata == {"k": "a\ufffdb", "\ufffd": "\0", "\U0001f600": "ü"}
    _lists_work(worker)
