"""A forced deletion of what a running job needs: the job is cancelled, and its trainer gone before the 200."""

import json
from collections.abc import Iterator
from typing import ClassVar

import openai
import pytest
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import servers
from tests.support.jobs import chats
from tests.support.servers import LOCAL_BASE, Server, wait_until

TRAINER = "tests.fakes.fake_trainer"


class SlowTrainerServer(FakeEngineServer):
    """Everything real but the engine and the trainers: these take a minute for a job."""

    program: ClassVar[str] = "tests.fakes.with_fake_trainer"
    careless: ClassVar[dict[str, str]] = {
        "FAKE_TRAINER": json.dumps({"steps": 600, "step_seconds": 0.1, "checkpoints": [2]})
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("forced") / "data"
    servers.prepare_local_base(data)
    running = SlowTrainerServer(data, workers=1)
    with servers.stopped_after(running):
        yield running


def _running_job(server: Server) -> tuple[str, str]:
    """Return the ids of a job whose trainer has made a checkpoint, and of its training file."""
    client = server.client()
    file = client.files.create(file=("chats.jsonl", chats(12)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file=file.id)
    made = client.fine_tuning.jobs.checkpoints
    wait_until(lambda: made.list(job.id).data, "a checkpoint")
    assert server.running(TRAINER)
    return job.id, file.id


def test_a_file_that_a_job_trains_on_is_deleted_by_force_and_its_trainer_is_gone(
    server: Server,
) -> None:
    client = server.client(max_retries=0)
    job, file = _running_job(server)
    with pytest.raises(openai.ConflictError) as caught:
        client.files.delete(file)
    assert (caught.value.code, job in caught.value.message) == ("needed_by_job", True)
    assert server.running(TRAINER), "refused means that nothing changed"
    assert client.files.delete(file, extra_query={"force": True}).deleted
    assert not server.running(TRAINER)
    ended = client.fine_tuning.jobs.retrieve(job)
    assert ended.status == "cancelled"
    assert ended.finished_at is not None
    assert ended.fine_tuned_model is None


def test_a_checkpoint_of_a_running_job_is_deleted_by_force(server: Server) -> None:
    client = server.client(max_retries=0)
    job, file = _running_job(server)
    [made] = client.fine_tuning.jobs.checkpoints.list(job).data
    with pytest.raises(openai.ConflictError):
        client.models.delete(made.fine_tuned_model_checkpoint)
    assert client.models.delete(
        made.fine_tuned_model_checkpoint, extra_query={"force": True}
    ).deleted
    assert not server.running(TRAINER)
    assert client.fine_tuning.jobs.retrieve(job).status == "cancelled"
    assert client.files.retrieve(file).id == file, "only what was named is deleted"


def test_a_file_is_erased_with_the_checkpoints_of_a_job_that_runs_and_its_trainer_is_gone(
    server: Server,
) -> None:
    client = server.client(max_retries=0)
    job, file = _running_job(server)
    [made] = client.fine_tuning.jobs.checkpoints.list(job).data
    plan = server.get(f"/v1/files/{file}/deletion_plan", key=server.owner_key).json
    assert plan["learned"]["jobs"] == [job]
    assert plan["learned"]["checkpoints"] == [made.fine_tuned_model_checkpoint]
    # Without force: who asks for everything that learned from a file asks for that.
    assert client.files.delete(file, extra_query={"cascade": "models"}).deleted
    assert not server.running(TRAINER)
    assert client.fine_tuning.jobs.retrieve(job).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(made.fine_tuned_model_checkpoint)
