"""`client.fine_tuning.jobs`: jobs and their events as they are read, one by one and in lists.

No runner runs here: the states that one would write are written by the tests.
"""

from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import fine_tuning_rows as rows
from tests.support.fine_tuning_rows import JOBS
from tests.support.lone_worker import LoneWorker
from tests.support.servers import LOCAL_BASE

from tunewarden.finetuning.states import State


def test_a_foreign_job_and_an_unknown_one_give_the_same_answer(worker: LoneWorker) -> None:
    keys = worker.make_key("owner", organization="others"), rows.own_project(worker)[0]
    for key in keys:
        foreign = rows.make_job(worker.app, key)
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/metrics"),
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
    key, client = rows.own_project(worker)
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
    assert worker.get(f"{JOBS}?metadata=x", key=key).error["param"] == "metadata"
    assert worker.get(f"{JOBS}?limit=1001", key=key).error["param"] == "limit"


def test_a_list_goes_on_over_many_jobs_that_do_not_match(worker: LoneWorker) -> None:
    key, client = rows.own_project(worker)
    first = rows.make_job(worker.app, key, metadata={"rare": "yes"})
    for _ in range(120):
        rows.make_job(worker.app, key)
    assert [one.id for one in client.fine_tuning.jobs.list(metadata={"rare": "yes"})] == [first]


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
    foreign = worker.get(f"{JOBS}/{other}/events?after={every[2].id}", key=worker.owner_key)
    assert (foreign.status, foreign.error["param"]) == (400, "after")


def test_curves_of_a_running_job_have_the_extremes_of_each_bucket(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.RUNNING)
    path = f"/fine_tuning/jobs/{job_id}/metrics"

    def read(**query: int) -> dict[str, Any]:
        answer = client.get(path, cast_to=object, options={"params": query})
        assert isinstance(answer, dict)
        return answer

    empty = read()
    assert (empty["object"], empty["step"], empty["train_loss"]) == (
        "fine_tuning.job.metrics",
        None,
        [],
    )
    rows.tell(worker.app, job_id, "Files validated")
    for step in range(1, 9):
        data = {"step": step, "total_steps": 16, "train_loss": 5.0 if step == 6 else 8.0 / step}
        if step >= 4:
            data |= {"valid_loss": 2.5, "valid_mean_token_accuracy": 0.5}
        rows.tell(worker.app, job_id, f"Step {step}", data)
    found = read(points=8)  # four buckets of four steps
    assert (found["step"], found["total_steps"]) == (8, 16)
    assert [(one["step"], one["value"]) for one in found["train_loss"]] == [
        (1, 8.0),
        (4, 2.0),
        (6, 5.0),
        (8, 1.0),
    ]
    assert found["valid_loss"] == [{"step": 4, "value": 2.5}]
    assert len(read()["train_loss"]) == 8
    assert found["train_mean_token_accuracy"] == []
    for points in (1, 1001):
        refused = worker.get(f"/v1{path}?points={points}", key=worker.owner_key)
        assert (refused.status, refused.error["param"]) == (400, "points")


def test_a_job_that_ended_shows_what_it_made_and_that_it_was_deleted(
    worker: LoneWorker, client: OpenAI
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key, trained_tokens=99, state=State.RUNNING)
    running = client.fine_tuning.jobs.retrieve(job_id)
    assert (running.trained_tokens, running.fine_tuned_model) == (None, None)
    model, result = rows.make_model(app, key, job_id=job_id), rows.make_file(app, key)
    with app.database.read() as tx:
        row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=result)
        assert row is not None
    rows.set_job(
        app,
        job_id,
        state=State.SUCCEEDED,
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
    rows.begin_deletion(app, key, result)
    after = client.fine_tuning.jobs.retrieve(job_id)
    assert (after.status, after.fine_tuned_model, after.result_files) == (
        "succeeded",
        model.id,
        [result],
    )
    assert after.to_dict()["fine_tuned_model_deleted"] is True


def test_a_failed_job_shows_its_error(worker: LoneWorker, client: OpenAI) -> None:
    error = {"code": "invalid_training_file", "message": "Line 3", "param": "training_file"}
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.FAILING, error=error)
    ending = client.fine_tuning.jobs.retrieve(job_id)
    assert (ending.status, ending.error) == ("running", None), "its saved state is being erased"
    rows.set_job(worker.app, job_id, state=State.FAILED)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.error is not None
    assert job.error.to_dict() == error


def test_a_reader_sees_jobs_and_changes_none(worker: LoneWorker, file_id: str) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    reader = worker.make_key("reader")
    for path in ("", *(f"/{job_id}{one}" for one in ("", "/events", "/metrics", "/checkpoints"))):
        assert worker.get(f"{JOBS}{path}", key=reader).status == 200
    fields = {"model": LOCAL_BASE, "training_file": file_id}
    assert worker.post(JOBS, fields, key=reader).status == 403
    for verb in ("cancel", "pause", "resume"):
        assert worker.post(f"{JOBS}/{job_id}/{verb}", {}, key=reader).status == 403
    assert worker.get(f"{JOBS}/{job_id}", key=reader).json["status"] == "validating_files"


def test_a_legacy_id_is_found_if_it_is_in_the_table(worker: LoneWorker, client: OpenAI) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    legacy = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(legacy)
    rows.set_job(worker.app, job_id, id=legacy)
    assert client.fine_tuning.jobs.retrieve(legacy).id == legacy
