"""`client.fine_tuning` checkpoints, and the permissions that open them to other projects.

No runner runs here: the states that one would write are written by the tests.
"""

from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import fine_tuning_rows as rows
from tests.support.lone_worker import LoneWorker

from tunewarden.finetuning.states import State


def test_checkpoints_are_listed_newest_first_and_say_when_they_were_deleted(
    worker: LoneWorker, client: OpenAI
) -> None:
    app, key = worker.app, worker.owner_key
    job_id = rows.make_job(app, key, state=State.SUCCEEDED)
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
    job_id = rows.make_job(app, key, state=State.SUCCEEDED)
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
    assert rows.audited(worker, made[0].id) == [
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
    empty = permissions.list(model.id, project_id="project_id", limit=0, after=made[2])
    assert (empty.data, empty.has_more) == ([], False)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        older = permissions.retrieve(model.id)
    assert [one.id for one in older.data] == made[::-1]


def test_permissions_can_be_revoked_while_they_are_listed(
    worker: LoneWorker, client: OpenAI
) -> None:
    job_id = rows.make_job(worker.app, worker.owner_key)
    model = rows.make_checkpoint(worker.app, worker.owner_key, job_id, 5, {"step": 5})
    projects = [rows.make_project(worker.app)[0] for _ in range(5)]
    permissions = client.fine_tuning.checkpoints.permissions
    made = {one.id for one in permissions.create(model.id, project_ids=projects)}
    found = set()
    for one in permissions.list(model.id, limit=2):
        permissions.delete(one.id, fine_tuned_model_checkpoint=model.id)
        found.add(one.id)
    assert found == made


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
