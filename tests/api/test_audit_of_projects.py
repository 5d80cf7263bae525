"""What administrators do to a project is found by the audit log's filter of projects."""

from collections.abc import Iterator

import pytest
from tests.support import administration
from tests.support.administration import ask
from tests.support.servers import Server, WithoutTorch, serving

from tunewarden.identity import key_format


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("projects") / "data", kind=WithoutTorch) as running:
        yield running


def test_all_that_was_done_to_a_project_is_found_by_it(server: Server) -> None:
    key = administration.make_admin_key(server.app)
    client = administration.client(server, key)
    projects = client.admin.organization.projects
    project = projects.create(name="Harbour").id
    other = projects.create(name="Other").id
    projects.update(project, name="Port")
    user = administration.make_user(server.app, "docker")
    projects.users.create(project, role="member", user_id=user)
    account = projects.service_accounts.create(project, name="crane")
    assert account.api_key is not None
    rotated = ask(
        server,
        "POST",
        f"/projects/{project}/api_keys/{account.api_key.id}/rotate",
        key,
        {"overlap_seconds": 60},
    )
    assert rotated.status == 200, rotated.body
    quota = ask(server, "POST", f"/projects/{project}/quota", key, {"max_files": 5})
    assert quota.status == 200, quota.body
    projects.users.delete(user, project_id=project)
    projects.service_accounts.delete(account.id, project_id=project)
    projects.archive(project)
    listed = ask(server, "GET", f"/audit_logs?project_ids[]={project}&limit=100", key).json["data"]
    assert {one["type"] for one in listed} == {
        "project.created",
        "project.updated",
        "role.assignment.created",
        "service_account.created",
        "api_key.created",
        "api_key.updated",
        "api_key.deleted",
        "project.quota.updated",
        "role.assignment.deleted",
        "service_account.deleted",
        "project.archived",
    }
    assert {one["project"]["name"] for one in listed} == {"Port"}
    assert {one["project"]["id"] for one in listed} == {project}
    made = ask(server, "GET", f"/audit_logs?project_ids[]={other}", key).json["data"]
    assert [one["type"] for one in made] == ["project.created"], "the control"


def test_a_new_key_is_told_with_its_user_and_project(server: Server) -> None:
    admin_key = administration.make_admin_key(server.app)
    key_id = key_format.present(server.make_key("owner")).id
    query = f"resource_ids[]={key_id}&event_types[]=api_key.created"
    [event] = ask(server, "GET", f"/audit_logs?{query}", admin_key).json["data"]
    data = event["api_key.created"]["data"]
    sql = "SELECT user_id, project_id FROM api_keys WHERE id = :id"
    assert server.app.database.peek(sql, id=key_id) == (data["user_id"], data["in_project"])
    assert event["project"]["id"] == data["in_project"]
