"""`client.fine_tuning.jobs.create`: what is accepted, what is refused, and how many.

No runner runs here: the states that one would write are written by the tests.
"""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from tests.support import fine_tuning_rows as rows
from tests.support.fine_tuning_rows import JOBS, REMOTE_BASE
from tests.support.lone_worker import LoneWorker
from tests.support.servers import LOCAL_BASE, Reply

from tunewarden.finetuning import jobs
from tunewarden.finetuning.creation import SEED_MAX, UNFINISHED_MAX
from tunewarden.finetuning.states import State

AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}


def _ask(worker: LoneWorker, **fields: object) -> Reply:
    return worker.post(JOBS, fields)


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
    asked = client.fine_tuning.jobs
    job = asked.create(
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
    assert asked.retrieve(job.id) == job
    assert job.id in [one.id for one in asked.list()]
    told = [event.message for event in asked.list_events(job.id)]
    assert told == [
        f"Validating training file: {file_id} and validation file: {job.validation_file}",
        f"Created fine-tuning job: {job.id}",
    ]
    rows.set_job(worker.app, job.id, finished_at=1)
    assert asked.cancel(job.id).status == "cancelled"
    assert rows.audited(worker, job.id) == ["fine_tuning.job.created", "fine_tuning.job.cancelled"]


def test_the_asynchronous_client_creates_reads_and_pauses(worker: LoneWorker, file_id: str) -> None:
    async def use() -> None:
        async with worker.async_client(_strict_response_validation=True) as client:
            asked = client.fine_tuning.jobs
            job = await asked.create(model=LOCAL_BASE, training_file=file_id)
            assert (await asked.retrieve(job.id)).id == job.id
            assert [one.type async for one in asked.list_events(job.id)] == ["message", "message"]
            assert [one async for one in asked.checkpoints.list(job.id)] == []
            assert (await asked.pause(job.id)).to_dict()["paused"] is True
            assert "paused" not in (await asked.resume(job.id)).to_dict()
            assert job.id in [one.id async for one in asked.list()]

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
    caller = rows.caller_of(worker.app, worker.owner_key)
    made = jobs.retrieve(worker.app.database, caller, job.id).job
    assert (made.start_n, made.base) == (model.n, LOCAL_BASE)
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
        ({"model": REMOTE_BASE}, "model", "served by a remote engine"),
        ({"training_file": "file-no"}, "training_file", "The file 'file-no' does not exist"),
        ({"validation_file": "file-no"}, "validation_file", "The file 'file-no' does not exist"),
        ({"suffix": "a:b"}, "suffix", "Invalid suffix: use up to 64"),
        ({"suffix": "a" * 65}, "suffix", "Invalid suffix: use up to 64"),
        ({"seed": -1}, "seed", "whole number from 0"),
        ({"seed": SEED_MAX + 1}, "seed", "whole number from 0"),
        ({"seed": True}, "seed", "whole number from 0"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "keys of up to 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "values of up to 512"),
        ({"metadata": {"k": 1}}, "metadata", "values are text"),
        ({"method": {"type": "reinforcement"}}, "method", "'reinforcement' is not supported"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters", "'n_epochs' must be"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "wandb are not supported"),
        ({"epochs": 3}, "epochs", "Unrecognized request argument supplied: 'epochs'"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_parameter_and_leaves_nothing(
    worker: LoneWorker, file_id: str, fields: dict[str, object], param: str, told: str
) -> None:
    before = worker.get(JOBS, key=worker.owner_key).json
    reply = _ask(worker, **{"model": LOCAL_BASE, "training_file": file_id, **fields})
    assert (reply.status, reply.error["param"]) == (400, param)
    assert reply.error["type"] == "invalid_request_error"
    assert told in str(reply.error["message"])
    assert worker.get(JOBS, key=worker.owner_key).json == before


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
    for key in (worker.make_key("owner", organization="others"), rows.own_project(worker)[0]):
        foreign = rows.make_file(worker.app, key)
        reply = _ask(worker, model=LOCAL_BASE, training_file=foreign)
        unknown = _ask(worker, model=LOCAL_BASE, training_file="file-nobody")
        assert (reply.status, unknown.status) == (400, 400)
        assert reply.body.replace(foreign.encode(), b"file-nobody") == unknown.body


def test_a_file_that_is_being_deleted_has_no_new_jobs(worker: LoneWorker, file_id: str) -> None:
    rows.begin_deletion(worker.app, worker.owner_key, file_id)
    assert _ask(worker, model=LOCAL_BASE, training_file=file_id).status == 400


def test_a_project_has_a_bounded_number_of_unfinished_jobs(worker: LoneWorker) -> None:
    key, _ = rows.own_project(worker)
    first = rows.make_job(worker.app, key, state=State.PAUSED)
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
    with pytest.raises(
        openai.RateLimitError, match=f"{UNFINISHED_MAX} of {UNFINISHED_MAX}"
    ) as refused:
        client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file_id)
    assert refused.value.code == "too_many_jobs"
    assert refused.value.response.headers["x-should-retry"] == "false"
    other = rows.own_project(worker)[0]
    assert rows.make_job(worker.app, other), "another project has its own"
    rows.set_job(worker.app, made[0], state=State.CANCELLED)
    client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file_id)


def test_graders_are_not_offered(client: OpenAI) -> None:
    for path in ("run", "validate"):
        with pytest.raises(openai.NotFoundError, match="not supported"):
            client.post(f"/fine_tuning/alpha/graders/{path}", body={}, cast_to=FineTuningJob)


def test_a_key_that_may_only_make_jobs_gets_the_one_that_it_made(
    worker: LoneWorker, file_id: str
) -> None:
    key = worker.make_key("owner", "api.fine_tuning.jobs.write")
    reply = worker.post(JOBS, {"model": LOCAL_BASE, "training_file": file_id}, key=key)
    assert reply.status == 200, reply.body
    read = worker.get(f"{JOBS}/{reply.json['id']}", key=key)
    assert (read.status, read.error["code"]) == (403, "missing_scope")


def test_a_request_that_is_sent_again_with_its_key_makes_no_second_job(worker: LoneWorker) -> None:
    key, _ = rows.own_project(worker)
    file_id, client = rows.make_file(worker.app, key), worker.client(key)

    def make(file: str, client: OpenAI = client) -> FineTuningJob:
        return client.fine_tuning.jobs.create(
            model=LOCAL_BASE,
            training_file=file,
            seed=1,
            metadata={"team": "a"},
            extra_headers={"Idempotency-Key": "once"},
        )

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, [file_id] * 8))
    assert all(one == made[0] for one in made), "all came at once"
    assert [one.id for one in client.fine_tuning.jobs.list()] == [made[0].id]
    with pytest.raises(openai.ConflictError, match=made[0].id) as refused:
        make(rows.make_file(worker.app, key))
    assert refused.value.code == "idempotency_key_reused"
    other, _ = rows.own_project(worker)
    elsewhere = make(rows.make_file(worker.app, other), worker.client(other))
    assert elsewhere.id != made[0].id, "another project's keys are its own"


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_of_a_request_has_a_length(worker: LoneWorker, file_id: str, key: str) -> None:
    asked = OpenAI(base_url=worker.url, api_key=worker.owner_key).fine_tuning.jobs
    with pytest.raises(openai.BadRequestError, match="1 to 255"):
        asked.create(
            model=LOCAL_BASE, training_file=file_id, extra_headers={"Idempotency-Key": key}
        )
