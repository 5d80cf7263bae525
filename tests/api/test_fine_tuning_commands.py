"""`client.fine_tuning.jobs`: cancel, pause and resume, and when they are answered.

No runner runs here: the states that one would write are written by the tests.
"""

import threading
import time

import openai
import pytest
from openai import OpenAI
from tests.support import fine_tuning_rows as rows
from tests.support.fine_tuning_rows import JOBS
from tests.support.lone_worker import LoneWorker

from tunewarden.finetuning.commands import SETTLE_SECONDS
from tunewarden.finetuning.states import State


def test_a_cancel_is_answered_when_the_trainer_is_gone(worker: LoneWorker, client: OpenAI) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.RUNNING, estimated_finish_at=5)

    def reap() -> None:
        while True:
            if rows.state_of(worker.app, job_id) is State.CANCELLING:
                return rows.set_job(
                    worker.app, job_id, state=State.CANCELLED, finished_at=7_000_000
                )
            time.sleep(0.01)

    runner = threading.Thread(target=reap)
    runner.start()
    job = client.fine_tuning.jobs.cancel(job_id)
    runner.join()
    assert (job.status, job.finished_at, job.estimated_finish) == ("cancelled", 7, None)
    again = client.fine_tuning.jobs.cancel(job_id)
    assert again.status == "cancelled", "a retried cancel gets its answer"
    assert rows.audited(worker, job_id).count("fine_tuning.job.cancelled") == 1


def test_a_cancel_is_answered_after_a_bound_although_the_trainer_lives(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.RUNNING)
    began = time.monotonic()
    job = client.fine_tuning.jobs.cancel(job_id)
    assert SETTLE_SECONDS <= time.monotonic() - began < SETTLE_SECONDS + 30  # of a busy machine
    assert (job.status, job.finished_at) == ("cancelled", None)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_what_has_ended_stays_ended(worker: LoneWorker, state: State, verb: str) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=state)
    reply = worker.request("POST", f"{JOBS}/{job_id}/{verb}", key=worker.owner_key)
    assert reply.status == 400
    assert reply.error == {
        "message": f"Job has already completed: {job_id}",
        "type": "invalid_request_error",
        "param": "fine_tuning_job_id",
        "code": "job_already_ended",
    }


def test_a_cancelled_job_is_neither_paused_nor_resumed(worker: LoneWorker) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.CANCELLED)
    for verb in ("pause", "resume"):
        reply = worker.request("POST", f"{JOBS}/{job_id}/{verb}", key=worker.owner_key)
        assert reply.status == 400
        assert reply.error["message"] == f"Job has already been cancelled: {job_id}"


def test_a_job_that_waits_is_paused_at_once_and_resumed(worker: LoneWorker, client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.QUEUED)
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
    assert rows.audited(worker, job_id)[1:] == ["fine_tuning.job.paused", "fine_tuning.job.resumed"]


def test_a_job_that_runs_saves_its_state_before_it_is_paused(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key, state=State.RUNNING)

    def save() -> None:
        while True:
            if rows.state_of(worker.app, job_id) is State.PAUSING:
                early = worker.request("POST", f"{JOBS}/{job_id}/resume", key=worker.owner_key)
                assert (early.status, early.error["code"]) == (409, "job_is_pausing")
                assert early.header("retry-after") == "1"
                return rows.set_job(worker.app, job_id, state=State.PAUSED)
            time.sleep(0.01)

    runner = threading.Thread(target=save)
    runner.start()
    job = client.fine_tuning.jobs.pause(job_id)
    runner.join()
    assert (job.status, job.to_dict()["paused"]) == ("queued", True)
