"""`client.fine_tuning`: jobs, events, checkpoints and permissions, as the SDK and the wire see them.

No runner runs here: the states that one would write are written by the tests.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from tests import fine_tuning_rows as rows
from tests import lone_worker
from tests.lone_worker import LoneWorker
from tests.servers import LOCAL_BASE, Reply

from tunewarden.finetuning.creation import SEED_MAX, UNFINISHED_MAX
from tunewarden.finetuning.life import SETTLE_SECONDS
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind

JOBS = "/v1/fine_tuning/jobs"
AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
REMOTE_BASE = "far-base"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneWorker]:
    with lone_worker.serving(tmp_path_factory.mktemp("jobs") / "data") as running:
        with running.app.database.write() as tx:
            bases.add(
                tx,
                name=REMOTE_BASE,
                kind=BaseKind.REMOTE,
                location="http://127.0.0.1:9",
                engine_model="far",
                modules={},
            )
        yield running


@pytest.fixture
def client(worker: LoneWorker) -> OpenAI:
    """A client that refuses what OpenAI's schema does not allow."""
    return worker.client(_strict_response_validation=True, max_retries=0)


@pytest.fixture
def file_id(worker: LoneWorker) -> str:
    return rows.make_file(worker.app, worker.owner_key)


def _own_project(worker: LoneWorker) -> tuple[str, OpenAI]:
    """A new project, whose lists are therefore empty, and a client of it."""
    _, key = rows.make_project(worker.app)
    return key, worker.client(key, _strict_response_validation=True, max_retries=0)


def _ask(worker: LoneWorker, **fields: object) -> Reply:
    return worker.post(JOBS, fields)


def _audited(worker: LoneWorker, resource_id: str) -> list[str]:
    with worker.app.database.read() as tx:
        found = tx.rows(
            "SELECT type FROM audit_events WHERE resource_id = :id ORDER BY n", id=resource_id
        )
    return [row[0] for row in found]


def test_a_new_job_answers_exactly_this(worker: LoneWorker, file_id: str) -> None:
    before = int(time.time())
    reply = _ask(
        worker, model=LOCAL_BASE, training_file=file_id, seed=42, suffix="x", metadata={"team": "a"}
    )
    assert reply.status == 200, reply.body
    job = reply.json
    assert str(job.pop("id")).startswith("ftjob-")
    assert before <= int(str(job.pop("created_at"))) <= time.time()
    organization = rows.caller_of(worker.app, worker.owner_key).organization_id
    assert job == {
        "object": "fine_tuning.job",
        "finished_at": None,
        "status": "validating_files",
        "model": LOCAL_BASE,
        "fine_tuned_model": None,
        "organization_id": organization,
        "training_file": file_id,
        "validation_file": None,
        "result_files": [],
        "hyperparameters": AUTO,
        "method": {"type": "supervised", "supervised": {"hyperparameters": AUTO}},
        "seed": 42,
        "trained_tokens": None,
        "estimated_finish": None,
        "error": None,
        "integrations": [],
        "metadata": {"team": "a"},
        "user_provided_suffix": "x",
    }


def test_the_synchronous_client_creates_reads_and_cancels(
    worker: LoneWorker, client: OpenAI, file_id: str
) -> None:
    jobs = client.fine_tuning.jobs
    job = jobs.create(
        model=LOCAL_BASE,
        training_file=file_id,
        validation_file=rows.make_file(worker.app, worker.owner_key),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 3}}},
    )
    assert (job.status, job.hyperparameters.n_epochs) == ("validating_files", 3)
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.2
    assert jobs.retrieve(job.id) == job
    assert job.id in [one.id for one in jobs.list()]
    told = [event.message for event in jobs.list_events(job.id)]
    assert told == [
        f"Validating training file: {file_id} and validation file: {job.validation_file}",
        f"Created fine-tuning job: {job.id}",
    ]
    rows.set_job(worker.app, job.id, finished_at=1)
    assert jobs.cancel(job.id).status == "cancelled"
    assert _audited(worker, job.id) == ["fine_tuning.job.created", "fine_tuning.job.cancelled"]


def test_the_asynchronous_client_creates_reads_and_pauses(worker: LoneWorker, file_id: str) -> None:
    async def use() -> None:
        async with worker.async_client(_strict_response_validation=True) as client:
            jobs = client.fine_tuning.jobs
            job = await jobs.create(model=LOCAL_BASE, training_file=file_id)
            assert (await jobs.retrieve(job.id)).id == job.id
            assert [one.type async for one in jobs.list_events(job.id)] == ["message", "message"]
            assert [one async for one in jobs.checkpoints.list(job.id)] == []
            assert (await jobs.pause(job.id)).to_dict()["paused"] is True
            assert "paused" not in (await jobs.resume(job.id)).to_dict()
            assert job.id in [one.id async for one in jobs.list()]

    asyncio.run(use())


def test_the_blocks_of_other_methods_do_not_count(client: OpenAI, file_id: str) -> None:
    """As the official SDK's own tests send them, without the integrations."""
    job = client.fine_tuning.jobs.create(
        model=LOCAL_BASE,
        training_file=file_id,
        hyperparameters={
            "batch_size": "auto",
            "learning_rate_multiplier": "auto",
            "n_epochs": "auto",
        },
        metadata={"foo": "string"},
        method={
            "type": "supervised",
            "dpo": {"hyperparameters": {"beta": "auto", "n_epochs": "auto"}},
            "reinforcement": {
                "grader": {
                    "input": "input",
                    "name": "name",
                    "operation": "eq",
                    "reference": "reference",
                    "type": "string_check",
                },
                "hyperparameters": {"compute_multiplier": "auto", "reasoning_effort": "default"},
            },
            "supervised": {"hyperparameters": {"n_epochs": "auto"}},
        },
        seed=42,
        suffix="x",
        validation_file=file_id,
        integrations=None,
    )
    assert job.method is not None
    assert job.method.type == "supervised"


def test_a_seed_is_drawn_when_none_is_given(client: OpenAI, file_id: str) -> None:
    make = client.fine_tuning.jobs.create
    seeds = {make(model=LOCAL_BASE, training_file=file_id).seed for _ in range(4)}
    assert len(seeds) > 1
    assert all(0 <= seed <= SEED_MAX for seed in seeds)


@pytest.mark.parametrize("step", [None, 7])
def test_a_job_may_continue_from_a_model_or_a_checkpoint(
    worker: LoneWorker, client: OpenAI, file_id: str, step: int | None
) -> None:
    earlier = rows.make_job(worker.app, worker.owner_key)
    model = rows.make_model(worker.app, worker.owner_key, job_id=earlier, step=step)
    job = client.fine_tuning.jobs.create(model=model.id, training_file=file_id)
    assert job.model == model.id
    found = worker.app.database.peek("SELECT start_n, base FROM jobs WHERE id = :id", id=job.id)
    assert found == (model.n, LOCAL_BASE)
    with worker.app.database.write() as tx:
        tx.run("UPDATE artifacts SET state = 'archived' WHERE n = :n", n=model.n)
    with pytest.raises(openai.BadRequestError, match="is archived"):
        client.fine_tuning.jobs.create(model=model.id, training_file=file_id)


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({"model": None}, "model", "Missing required parameter: 'model'"),
        ({"training_file": None}, "training_file", "Missing required parameter"),
        ({"model": 7}, "model", "'model' must be text"),
        ({"model": "gpt-9"}, "model", "Model gpt-9 is not available for fine-tuning"),
        ({"model": REMOTE_BASE}, "model", "served by another engine"),
        ({"training_file": "file-no"}, "training_file", "The file 'file-no' does not exist"),
        ({"validation_file": "file-no"}, "validation_file", "The file 'file-no' does not exist"),
        ({"suffix": "a:b"}, "suffix", "A suffix may have up to 64"),
        ({"suffix": "a" * 65}, "suffix", "A suffix may have up to 64"),
        ({"seed": -1}, "seed", "whole number from 0"),
        ({"seed": SEED_MAX + 1}, "seed", "whole number from 0"),
        ({"seed": True}, "seed", "whole number from 0"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "keys of up to 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "values of up to 512"),
        ({"metadata": {"k": 1}}, "metadata", "values are text"),
        ({"method": {"type": "reinforcement"}}, "method", "'reinforcement' is not offered"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters", "'n_epochs' must be"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "wandb are not offered"),
        ({"epochs": 3}, "epochs", "Unrecognized request argument supplied: 'epochs'"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_parameter_and_leaves_nothing(
    worker: LoneWorker, file_id: str, fields: dict[str, object], param: str, told: str
) -> None:
    before = worker.app.database.peek("SELECT COUNT(*) FROM jobs")
    reply = _ask(worker, **{"model": LOCAL_BASE, "training_file": file_id, **fields})
    assert (reply.status, reply.error["param"]) == (400, param)
    assert reply.error["type"] == "invalid_request_error"
    assert told in str(reply.error["message"])
    assert worker.app.database.peek("SELECT COUNT(*) FROM jobs") == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":NaN}', b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(worker: LoneWorker, body: bytes) -> None:
    reply = worker.request("POST", JOBS, key=worker.owner_key, body=body)
    assert reply.status == 400
    assert str(reply.error["message"]).startswith("The body ")


def test_a_body_is_bounded(worker: LoneWorker) -> None:
    assert _ask(worker, model="x" * 1024 * 1024).status == 413


def test_a_file_needs_the_purpose_and_the_project(worker: LoneWorker) -> None:
    batch = rows.make_file(worker.app, worker.owner_key, purpose="batch")
    reply = _ask(worker, model=LOCAL_BASE, training_file=batch)
    assert (reply.status, reply.error["code"]) == (400, "invalid_file_purpose")
    for key in (worker.make_key("owner", organization="others"), _own_project(worker)[0]):
        foreign = rows.make_file(worker.app, key)
        reply = _ask(worker, model=LOCAL_BASE, training_file=foreign)
        unknown = _ask(worker, model=LOCAL_BASE, training_file="file-nobody")
        assert (reply.status, unknown.status) == (400, 400)
        assert reply.body.replace(foreign.encode(), b"file-nobody") == unknown.body


def test_a_file_that_is_being_deleted_has_no_new_jobs(worker: LoneWorker, file_id: str) -> None:
    with worker.app.database.write() as tx:
        tx.run("UPDATE artifacts SET state = 'deleting' WHERE id = :id", id=file_id)
    assert _ask(worker, model=LOCAL_BASE, training_file=file_id).status == 400


def test_a_foreign_job_and_an_unknown_one_give_the_same_answer(worker: LoneWorker) -> None:
    keys = worker.make_key("owner", organization="others"), _own_project(worker)[0]
    for key in keys:
        foreign = rows.make_job(worker.app, key)
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/checkpoints"),
            ("POST", "/cancel"),
            ("POST", "/pause"),
            ("POST", "/resume"),
        ):
            replies = [
                worker.request(method, f"{JOBS}/{one}{path}", key=worker.owner_key)
                for one in (foreign, "ftjob-nobody")
            ]
            assert [reply.status for reply in replies] == [404, 404]
            assert replies[0].body.replace(foreign.encode(), b"ftjob-nobody") == replies[1].body
            assert replies[1].error == {
                "message": "Could not find fine tune: ftjob-nobody",
                "type": "invalid_request_error",
                "param": "fine_tuning_job_id",
                "code": "fine_tune_not_found",
            }
        assert worker.get(f"{JOBS}/{foreign}", key=key).json["status"] == "validating_files"


def test_the_list_is_newest_first_in_pages_and_by_metadata(worker: LoneWorker) -> None:
    key, client = _own_project(worker)
    made = [rows.make_job(worker.app, key) for _ in range(5)]
    for number in (1, 3):
        rows.set_job(worker.app, made[number], metadata={"team": "a", "n": str(number)})
    jobs = client.fine_tuning.jobs
    assert [one.id for one in jobs.list(limit=2)] == made[::-1], "the SDK asks for every page"
    first = jobs.list(limit=2)
    assert ([one.id for one in first.data], first.has_more) == ([made[4], made[3]], True)
    assert [one.id for one in jobs.list(after=made[1]).data] == [made[0]]
    assert [one.id for one in jobs.list(metadata={"team": "a"})] == [made[3], made[1]]
    assert [one.id for one in jobs.list(metadata={"team": "a", "n": "1"})] == [made[1]]
    assert list(jobs.list(metadata={"team": "b"})) == []
    without = jobs.list(extra_query={"metadata": "null"})
    assert [one.id for one in without] == [made[4], made[2], made[0]]
    empty = jobs.list(limit=0)
    assert (empty.data, empty.has_more) == ([], True)
    assert len(jobs.list(after="after").data) == 5, "an unknown cursor is the beginning"
    assert worker.get(f"{JOBS}?metadata=x", key=key).error["param"] == "metadata"
    assert worker.get(f"{JOBS}?limit=1001", key=key).error["param"] == "limit"


def test_a_list_goes_on_over_many_jobs_that_do_not_match(worker: LoneWorker) -> None:
    key, client = _own_project(worker)
    first = rows.make_job(worker.app, key, metadata={"rare": "yes"})
    for _ in range(120):
        rows.make_job(worker.app, key)
    assert [one.id for one in client.fine_tuning.jobs.list(metadata={"rare": "yes"})] == [first]


def test_a_project_has_a_bounded_number_of_unfinished_jobs(worker: LoneWorker) -> None:
    key, _ = _own_project(worker)
    first = rows.make_job(worker.app, key, status="queued", is_paused=1)
    with worker.app.database.write() as tx:
        tx.run(
            "WITH RECURSIVE numbers (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM numbers WHERE k < :more)"
            " INSERT INTO jobs (id, internal_id, organization_id, project_id, status, is_paused, model, base,"
            " training_n, method, hyperparameters, suffix, seed, created_by, created_at)"
            " SELECT id || k, internal_id || k, organization_id, project_id, status, is_paused, model, base,"
            " training_n, method, hyperparameters, suffix, seed, created_by, created_at FROM jobs, numbers WHERE id = :id",
            id=first,
            more=UNFINISHED_MAX - 4,
        )
    file_id = rows.make_file(worker.app, key)
    made: list[str] = []

    def make() -> None:
        client = worker.client(key)  # which retries by itself, unless it is told not to
        with contextlib.suppress(openai.RateLimitError):
            made.append(client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file_id).id)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3, "as many as had room, though all came at once"
    client = worker.client(key)
    with pytest.raises(openai.RateLimitError, match=f"has {UNFINISHED_MAX} unfinished") as refused:
        client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file_id)
    assert refused.value.code == "too_many_jobs"
    assert refused.value.response.headers["x-should-retry"] == "false"
    other = _own_project(worker)[0]
    assert rows.make_job(worker.app, other), "another project has its own"
    rows.set_job(worker.app, made[0], status="cancelled", finished_at=1)
    client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file_id)


def test_events_are_paged_newest_first_and_metrics_carry_data(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    data = {"step": 3, "train_loss": 0.5}
    for step in range(1, 4):
        rows.tell(worker.app, job_id, f"Step {step}/3", {**data, "step": step})
    page = client.fine_tuning.jobs.list_events(job_id, limit=2)
    assert ([one.message for one in page.data], page.has_more) == (["Step 3/3", "Step 2/3"], True)
    every = list(page)
    assert len(every) == 5
    assert (every[0].type, every[0].data, every[0].level) == ("metrics", data, "info")
    reply = worker.get(f"{JOBS}/{job_id}/events?after={every[2].id}", key=worker.owner_key)
    shown = reply.json["data"]
    assert isinstance(shown, list)
    assert len(shown) == 2
    assert set(shown[0]) == {"id", "object", "created_at", "level", "type", "message"}
    other = rows.make_job(worker.app, worker.owner_key)
    assert len(client.fine_tuning.jobs.list_events(other, after=every[2].id).data) == 2


def test_a_job_that_ended_shows_what_it_made_and_that_it_was_deleted(
    worker: LoneWorker, client: OpenAI
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key, trained_tokens=99, status="running")
    running = client.fine_tuning.jobs.retrieve(job_id)
    assert (running.trained_tokens, running.fine_tuned_model) == (None, None)
    model, result = rows.make_model(app, key, job_id=job_id), rows.make_file(app, key)
    with app.database.read() as tx:
        row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=result)
        assert row is not None
    rows.set_job(
        app,
        job_id,
        status="succeeded",
        model_n=model.n,
        result_n=row[0],
        finished_at=1_700_000_000_000_000,
        hyperparameters={"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8},
    )
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model, job.result_files) == ("succeeded", model.id, [result])
    assert (job.trained_tokens, job.finished_at) == (99, 1_700_000_000)
    assert job.hyperparameters.learning_rate_multiplier == 1.8
    assert "fine_tuned_model_deleted" not in job.to_dict()
    assert client.models.delete(model.id).deleted
    with app.database.write() as tx:
        tx.run("UPDATE artifacts SET state = 'deleted' WHERE id = :id", id=result)
    after = client.fine_tuning.jobs.retrieve(job_id)
    assert (after.status, after.fine_tuned_model, after.result_files) == (
        "succeeded",
        model.id,
        [result],
    )
    assert after.to_dict()["fine_tuned_model_deleted"] is True


def test_a_failed_job_shows_its_error(worker: LoneWorker, client: OpenAI) -> None:
    error = {"code": "invalid_training_file", "message": "Line 3", "param": "training_file"}
    job_id = rows.make_job(worker.app, worker.owner_key, status="failed", error=error)
    ending = client.fine_tuning.jobs.retrieve(job_id)
    assert (ending.status, ending.error) == ("running", None), "its saved state is being erased"
    rows.set_job(worker.app, job_id, finished_at=1)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.error is not None
    assert job.error.to_dict() == error


def test_a_cancel_is_answered_when_the_trainer_is_gone(worker: LoneWorker, client: OpenAI) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, status="running", estimated_finish_at=5)

    def reap() -> None:
        while True:
            found = worker.app.database.peek("SELECT wish FROM jobs WHERE id = :id", id=job_id)
            if found == ("cancel",):
                return rows.set_job(worker.app, job_id, finished_at=7_000_000)
            time.sleep(0.01)

    runner = threading.Thread(target=reap)
    runner.start()
    job = client.fine_tuning.jobs.cancel(job_id)
    runner.join()
    assert (job.status, job.finished_at, job.estimated_finish) == ("cancelled", 7, None)
    again = client.fine_tuning.jobs.cancel(job_id)
    assert again.status == "cancelled", "a retried cancel gets its answer"
    assert _audited(worker, job_id).count("fine_tuning.job.cancelled") == 1


def test_a_cancel_is_answered_after_a_bound_although_the_trainer_lives(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, status="running")
    began = time.monotonic()
    job = client.fine_tuning.jobs.cancel(job_id)
    assert SETTLE_SECONDS <= time.monotonic() - began < SETTLE_SECONDS + 5
    assert (job.status, job.finished_at) == ("cancelled", None)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_what_has_ended_stays_ended(worker: LoneWorker, status: str, verb: str) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, status=status, finished_at=1)
    reply = worker.request("POST", f"{JOBS}/{job_id}/{verb}", key=worker.owner_key)
    assert reply.status == 400
    assert reply.error == {
        "message": f"Job has already completed: {job_id}",
        "type": "invalid_request_error",
        "param": "fine_tuning_job_id",
        "code": "job_already_ended",
    }


def test_a_cancelled_job_is_neither_paused_nor_resumed(worker: LoneWorker) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, status="cancelled", finished_at=1)
    for verb in ("pause", "resume"):
        reply = worker.request("POST", f"{JOBS}/{job_id}/{verb}", key=worker.owner_key)
        assert reply.status == 400
        assert reply.error["message"] == f"Job has already been cancelled: {job_id}"


def test_a_job_that_waits_is_paused_at_once_and_resumed(worker: LoneWorker, client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job_id = rows.make_job(worker.app, worker.owner_key, status="queued")
    for _ in range(2):
        job = jobs.pause(job_id)
        assert (job.status, job.to_dict()["paused"]) == ("queued", True)
    assert jobs.retrieve(job_id).to_dict()["paused"] is True
    job = jobs.resume(job_id)
    assert (job.status, job.to_dict().get("paused")) == ("queued", None)
    with pytest.raises(openai.BadRequestError, match="Job is not paused") as caught:
        jobs.resume(job_id)
    assert caught.value.code == "job_not_paused"
    assert [event.message for event in jobs.list_events(job_id)][:2] == [
        "Fine-tuning job resumed",
        "Fine-tuning job is being paused",
    ]
    assert _audited(worker, job_id)[1:] == ["fine_tuning.job.paused", "fine_tuning.job.resumed"]


def test_a_job_that_runs_saves_its_state_before_it_is_paused(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, status="running")

    def save() -> None:
        while True:
            found = worker.app.database.peek("SELECT wish FROM jobs WHERE id = :id", id=job_id)
            if found == ("pause",):
                early = worker.request("POST", f"{JOBS}/{job_id}/resume", key=worker.owner_key)
                assert (early.status, early.error["code"]) == (409, "job_is_pausing")
                assert early.header("retry-after") == "1"
                return rows.set_job(worker.app, job_id, status="queued", is_paused=1, wish=None)
            time.sleep(0.01)

    runner = threading.Thread(target=save)
    runner.start()
    job = client.fine_tuning.jobs.pause(job_id)
    runner.join()
    assert (job.status, job.to_dict()["paused"]) == ("queued", True)


def test_checkpoints_are_listed_newest_first_and_say_when_they_were_deleted(
    worker: LoneWorker, client: OpenAI
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key, status="succeeded", finished_at=1)
    metrics: dict[str, Any] = {"step": 4, "train_loss": 0.5, "valid_loss": None}
    first, last = (rows.make_checkpoint(app, key, job_id, step, metrics) for step in (4, 8))
    checkpoints = client.fine_tuning.jobs.checkpoints
    found = list(checkpoints.list(job_id, limit=1))
    assert [one.fine_tuned_model_checkpoint for one in found] == [last.id, first.id]
    assert [one.step_number for one in found] == [8, 4]
    assert found[0].metrics.to_dict() == {"step": 4, "train_loss": 0.5}
    assert found[0].fine_tuning_job_id == job_id
    assert client.models.retrieve(first.id).id == first.id
    assert client.models.delete(first.id).deleted
    told = [one.to_dict().get("deleted") for one in checkpoints.list(job_id)]
    assert told == [None, True]


def test_a_permission_opens_a_checkpoint_to_a_project_until_it_is_deleted(
    worker: LoneWorker, client: OpenAI, file_id: str
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key, status="succeeded", finished_at=1)
    model = rows.make_checkpoint(app, key, job_id, 4, {"step": 4})
    project, other_key = rows.make_project(app)
    other = worker.client(other_key, max_retries=0)

    def can_see() -> tuple[bool, bool, int]:
        listed = model.id in [one.id for one in other.models.list()]
        retrieved = worker.get(f"/v1/models/{model.id}", key=other_key).status == 200
        fields = {"model": model.id, "messages": [{"role": "user", "content": "Hello"}]}
        return listed, retrieved, worker.post("/v1/chat/completions", fields, key=other_key).status

    assert can_see() == (False, False, 404)
    permissions = client.fine_tuning.checkpoints.permissions
    made = list(permissions.create(model.id, project_ids=[project]))
    assert [one.project_id for one in made] == [project]
    assert can_see()[:2] == (True, True)
    assert can_see()[2] == 503, "admitted: it is the engine that is not here"
    # A request that started from it may be made, too.
    training = rows.make_file(app, other_key)
    assert other.fine_tuning.jobs.create(model=model.id, training_file=training).model == model.id
    deleted = permissions.delete(made[0].id, fine_tuned_model_checkpoint=model.id)
    assert deleted.to_dict() == {
        "id": made[0].id,
        "object": "checkpoint.permission",
        "deleted": True,
    }
    assert can_see() == (False, False, 404)
    assert _audited(worker, made[0].id) == [
        "checkpoint.permission.created",
        "checkpoint.permission.deleted",
    ]
    with pytest.raises(openai.NotFoundError):
        permissions.delete(made[0].id, fine_tuned_model_checkpoint=model.id)


def test_permissions_are_listed_in_either_order_and_by_project(
    worker: LoneWorker, client: OpenAI
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key)
    model = rows.make_checkpoint(app, key, job_id, 4, {"step": 4})
    projects = [rows.make_project(app)[0] for _ in range(3)]
    permissions = client.fine_tuning.checkpoints.permissions
    made = [one.id for one in permissions.create(model.id, project_ids=projects)]
    assert [one.id for one in permissions.create(model.id, project_ids=projects)] == made
    assert [one.id for one in permissions.list(model.id, limit=2)] == made[::-1]
    ascending = permissions.list(model.id, order="ascending", limit=2)
    assert [one.id for one in ascending] == made
    assert (ascending.has_more, ascending.last_id) == (True, made[1])
    chosen = permissions.list(model.id, project_id=projects[1])
    assert [one.id for one in chosen] == [made[1]]
    empty = permissions.list(model.id, project_id="project_id", limit=0, after="after")
    assert (empty.data, empty.has_more) == ([], False)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        older = permissions.retrieve(model.id)
    assert [one.id for one in older.data] == made[::-1]


@pytest.mark.parametrize("colon", [":", "%3A"])
def test_permissions_that_cannot_be_given_are_refused(worker: LoneWorker, colon: str) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key)
    model = rows.make_checkpoint(app, key, job_id, 4, {"step": 4})
    mine = rows.caller_of(app, key).project_id
    second, second_key = rows.make_project(app)
    foreign, foreign_key = rows.make_project(app, organization=_others(worker))
    path = f"/v1/fine_tuning/checkpoints/{model.id.replace(':', colon)}/permissions"
    for projects, told in (
        ([mine], "owns the checkpoint"),
        ([second, mine], "owns the checkpoint"),
        ([foreign], "has no project"),
        (["proj_nobody"], "has no project"),
        ([], "must be a list of 1"),
        ("all", "must be a list of 1"),
        ([7], "must be a list of 1"),
    ):
        reply = worker.post(path, {"project_ids": projects})
        assert (reply.status, reply.error["param"]) == (400, "project_ids")
        assert told in str(reply.error["message"])
    assert worker.get(path, key=key).json["data"] == [], "all of them or none"
    reader = worker.post(path, {"project_ids": [second]}, key=worker.make_key("reader"))
    assert (reader.status, reader.error["code"]) == (403, "missing_scope")
    assert "api.fine_tuning.checkpoints.write" in str(reader.error["message"])
    for stranger in (second_key, foreign_key):
        reply = worker.post(path, {"project_ids": [second]}, key=stranger)
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert worker.post(path, {"project_ids": [second]}).status == 200
    again = worker.post(path, {"project_ids": [second]}, key=second_key)
    assert again.status == 403, "who was given a permission gives none"


def _others(worker: LoneWorker) -> str:
    worker.make_key("owner", organization="others")
    return "others"


def test_a_reader_sees_jobs_and_changes_none(worker: LoneWorker, file_id: str) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    reader = worker.make_key("reader")
    for path in ("", f"/{job_id}", f"/{job_id}/events", f"/{job_id}/checkpoints"):
        assert worker.get(f"{JOBS}{path}", key=reader).status == 200
    fields = {"model": LOCAL_BASE, "training_file": file_id}
    assert worker.post(JOBS, fields, key=reader).status == 403
    for verb in ("cancel", "pause", "resume"):
        assert worker.post(f"{JOBS}/{job_id}/{verb}", {}, key=reader).status == 403
    assert worker.get(f"{JOBS}/{job_id}", key=reader).json["status"] == "validating_files"


def test_graders_are_not_offered(client: OpenAI) -> None:
    for path in ("run", "validate"):
        with pytest.raises(openai.NotFoundError, match="not offered"):
            client.post(f"/fine_tuning/alpha/graders/{path}", body={}, cast_to=FineTuningJob)


def test_a_legacy_id_is_found_if_it_is_in_the_table(worker: LoneWorker, client: OpenAI) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    legacy = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(legacy)
    rows.set_job(worker.app, job_id, id=legacy)
    assert client.fine_tuning.jobs.retrieve(legacy).id == legacy
