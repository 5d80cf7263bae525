"""Every list that has pages refuses a cursor that names none of its objects, instead of beginning anew."""

from typing import Any

import pytest
from tests.support import administration, webhook_rows
from tests.support import fine_tuning_rows as rows
from tests.support.lone_worker import LoneWorker

from tunewarden import ids


@pytest.fixture(scope="module")
def paged(worker: LoneWorker) -> dict[str, str]:
    """The routes of the document that take a cursor, each with a path where something is listed."""
    job = rows.make_job(worker.app, worker.owner_key)
    model = rows.make_checkpoint(worker.app, worker.owner_key, job, 1, {"step": 1})
    document = worker.get("/openapi.json", key=worker.owner_key).json
    described: dict[str, Any] = document["paths"]
    project = rows.make_project(worker.app)[0]
    endpoint = webhook_rows.make_endpoint(worker.app, worker.owner_key)
    return {
        path: path.format(
            job_id=job, model_id=model.id, project_id=project, webhook_endpoint_id=endpoint
        )
        for path, of in described.items()
        if any(one["name"] == "after" for one in of.get("get", {}).get("parameters", ()))
    }


LISTS = (
    "/v1/models",
    "/v1/files",
    "/v1/holds",
    "/v1/retention/rules",
    "/v1/webhook_endpoints",
    "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries",
    "/v1/deletions",
    "/v1/deletion_cases",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{job_id}/events",
    "/v1/fine_tuning/jobs/{job_id}/checkpoints",
    "/v1/fine_tuning/checkpoints/{model_id}/permissions",
    "/v1/organization/users",
    "/v1/organization/invites",
    "/v1/organization/projects",
    "/v1/organization/projects/{project_id}/users",
    "/v1/organization/projects/{project_id}/api_keys",
    "/v1/organization/projects/{project_id}/service_accounts",
    "/v1/organization/admin_api_keys",
    "/v1/organization/audit_logs",
)
# Their cursors are names: of bases, and of aliases, where a page begins after any name.
BY_NAME = ("/v1/organization/projects/{project_id}/rate_limits", "/v1/aliases")


def test_these_are_all_lists_that_have_pages(paged: dict[str, str]) -> None:
    assert sorted(paged) == sorted((*LISTS, *BY_NAME))


@pytest.mark.parametrize("route", LISTS)
def test_an_unknown_cursor_is_refused(
    worker: LoneWorker, paged: dict[str, str], route: str
) -> None:
    key = worker.owner_key
    if route.startswith(administration.ROOT):
        key = administration.make_admin_key(worker.app)
    reply = worker.get(f"{paged[route]}?after=nobody", key=key)
    assert reply.status == 400
    assert reply.error == {
        "message": "Invalid value for 'after': this list has no object with the id 'nobody'.",
        "type": "invalid_request_error",
        "param": "after",
        "code": "invalid_value",
    }
    assert worker.get(paged[route], key=key).status == 200


def test_a_long_cursor_is_not_repeated_whole(worker: LoneWorker) -> None:
    reply = worker.get(f"/v1/models?after={'x' * 5000}", key=worker.owner_key)
    assert f"'{'x' * ids.SHOWN_MAX}…'" in str(reply.error["message"])
