"""`client.admin.organization.projects` and their users, by the stock SDK, which checks what it gets."""

from collections.abc import Iterator
from itertools import count

import openai
import pytest
from openai import OpenAI
from tests.support import administration, fine_tuning_rows
from tests.support.administration import make_user
from tests.support.servers import Server

from tunewarden.finetuning.states import State

_numbers = count()


@pytest.fixture
def organization() -> str:
    return f"projects-{next(_numbers)}"


@pytest.fixture
def admin(server: Server, organization: str) -> Iterator[OpenAI]:
    with administration.client(
        server, administration.make_admin_key(server.app, organization)
    ) as client:
        yield client


def _refused(error: openai.APIStatusError) -> tuple[int, str | None, str | None]:
    return error.status_code, error.code, error.param


def _move_key(server: Server, key: str, project: str) -> None:
    """Make a key one of another project of its organization."""
    with server.app.database.write() as tx:
        tx.run(
            "UPDATE api_keys SET project_id = :project WHERE id = :id",
            project=project,
            id=f"key_{key.split('-')[2]}",
        )


def test_projects_are_created_renamed_and_listed(admin: OpenAI) -> None:
    projects = admin.admin.organization.projects
    made = [projects.create(name=f"project {n}") for n in range(5)]
    assert projects.retrieve(made[0].id) == made[0]
    assert (made[0].status, made[0].archived_at) == ("active", None)
    assert projects.update(made[0].id, name="another name").name == "another name"
    assert projects.update(made[0].id).name == "another name"
    found = list(projects.list(limit=2))
    assert [one.id for one in found[:5]] == [one.id for one in made[::-1]]
    assert [one.name for one in found[5:]] == ["Default project"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 3}, "name"),
        ({"name": None}, "name"),
        ({"name": "x", "geography": "EU"}, "geography"),
        ({"name": "x", "residency": {"region": "EU"}}, "residency"),
        ({"name": "x", "external_key_id": "key"}, "external_key_id"),
        ({"name": "x", "app_use_case": "y"}, "app_use_case"),
    ],
)
def test_what_a_project_cannot_have_is_refused(
    admin: OpenAI, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        admin.admin.organization.projects.create(name="", extra_body=fields)
    assert refused.value.param == param


def test_null_is_as_absent(admin: OpenAI) -> None:
    made = admin.admin.organization.projects.create(
        name="x", geography=None, residency=None, external_key_id=None
    )
    assert made.name == "x"


def test_the_keys_of_an_archived_project_are_refused_at_once(
    server: Server, admin: OpenAI, organization: str
) -> None:
    projects = admin.admin.organization.projects
    project = projects.create(name="short-lived").id
    key = server.make_key("owner", organization=organization)
    _move_key(server, key, project)
    model = server.make_model(key=key).id
    archived = projects.archive(project)
    assert archived.status == "archived"
    assert archived.archived_at is not None
    for _ in range(8):  # both workers
        with pytest.raises(openai.AuthenticationError):
            server.client(key, max_retries=0).models.list()
    assert projects.archive(project) == archived
    assert projects.retrieve(project) == archived
    assert project not in {one.id for one in projects.list()}
    assert project in {one.id for one in projects.list(include_archived=True)}
    # What it made stays the organization's: an Owner elsewhere in it can still delete it.
    other = server.make_key("owner", organization=organization)
    assert server.client(other).models.delete(model).deleted


def test_an_archived_project_does_not_change(
    server: Server, admin: OpenAI, organization: str
) -> None:
    projects = admin.admin.organization.projects
    project = projects.create(name="done").id
    user = make_user(server.app, "ada", organization=organization)
    projects.users.create(project, user_id=user, role="member")
    projects.archive(project)
    for attempt in (
        lambda: projects.update(project, name="x"),
        lambda: projects.users.create(project, user_id=user, role="member"),
        lambda: projects.users.update(user, project_id=project, role="owner"),
    ):
        with pytest.raises(openai.ConflictError) as refused:
            attempt()
        assert refused.value.code == "project_archived"
    assert projects.users.delete(user, project_id=project).deleted


def test_a_project_that_has_files_uploads_or_jobs_is_not_archived(
    server: Server, admin: OpenAI, organization: str
) -> None:
    projects = admin.admin.organization.projects
    project = projects.create(name="busy").id
    key = server.make_key("owner", organization=organization)
    _move_key(server, key, project)
    client = server.client(key, max_retries=0)
    file = client.files.create(file=("a.txt", b"x"), purpose="user_data")
    upload = client.uploads.create(
        bytes=1, filename="b.txt", mime_type="text/plain", purpose="user_data"
    )
    fine_tuning_rows.make_job(server.app, key, state=State.QUEUED, is_paused=True)
    with pytest.raises(openai.ConflictError) as refused:
        projects.archive(project)
    assert _refused(refused.value) == (409, "project_not_empty", "project_id")
    said = refused.value.message
    assert "2 active files, 1 unfinished uploads, 1 unfinished fine-tuning jobs" in said
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert client.files.retrieve(file.id).id == file.id
    client.uploads.cancel(upload.id)


def test_the_default_project_is_not_archived(admin: OpenAI) -> None:
    projects = admin.admin.organization.projects
    (default,) = projects.list()
    with pytest.raises(openai.ConflictError) as refused:
        projects.archive(default.id)
    assert _refused(refused.value) == (409, "default_project", "project_id")


def test_people_are_added_to_a_project_changed_and_removed(
    server: Server, admin: OpenAI, organization: str
) -> None:
    projects = admin.admin.organization.projects
    project = projects.create(name="p").id
    ada = make_user(server.app, "ada", email="ada@example.com", organization=organization)
    bob, eve = (make_user(server.app, name, organization=organization) for name in ("bob", "eve"))
    members = projects.users
    added = members.create(project, role="member", email="Ada@Example.com")
    assert (added.id, added.email, added.role) == (ada, "ada@example.com", "member")
    members.create(project, role="owner", user_id=bob)
    assert members.create(project, role="viewer", user_id=eve).role == "viewer"
    assert [user.id for user in members.list(project, limit=1)] == [eve, bob, ada]
    assert members.update(ada, project_id=project, role="owner").role == "owner"
    assert members.update(ada, project_id=project).role == "owner"
    assert members.retrieve(ada, project_id=project).role == "owner"
    deleted = members.delete(ada, project_id=project)
    assert (deleted.id, deleted.object) == (ada, "organization.project.user.deleted")
    with pytest.raises(openai.NotFoundError):
        members.retrieve(ada, project_id=project)
    assert admin.admin.organization.users.retrieve(ada).id == ada


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"role": "member"}, 400, "user_id"),
        ({"role": "member", "user_id": "{}", "email": "a@example.com"}, 400, "user_id"),
        ({"user_id": "{}"}, 400, "role"),
        ({"role": "admin", "user_id": "{}"}, 400, "role"),
        ({"role": "member", "email": "nobody@example.com"}, 404, "email"),
        ({"role": "member", "email": "no address"}, 400, "email"),
        ({"role": "member", "user_id": "user_nobody"}, 404, "user_id"),
    ],
)
def test_who_cannot_be_added_is_refused(  # noqa: PLR0917  the case
    server: Server,
    admin: OpenAI,
    organization: str,
    fields: dict[str, str],
    status: int,
    param: str,
) -> None:
    user = make_user(server.app, "ada", organization=organization)
    body = {name: value.replace("{}", user) for name, value in fields.items()}
    project = admin.admin.organization.projects.create(name="p").id
    with pytest.raises(openai.APIStatusError) as refused:
        admin.admin.organization.projects.users.create(
            project, role="", extra_body=body | {"x": None}
        )
    found = refused.value.status_code, refused.value.param
    assert found == ((400, "role") if "role" not in fields else (status, param))


def test_who_is_in_a_project_is_not_added_again(
    server: Server, admin: OpenAI, organization: str
) -> None:
    members = admin.admin.organization.projects.users
    project = admin.admin.organization.projects.create(name="p").id
    user = make_user(server.app, "ada", organization=organization)
    members.create(project, role="member", user_id=user)
    with pytest.raises(openai.ConflictError) as refused:
        members.create(project, role="owner", user_id=user)
    assert refused.value.code == "already_in_project"
    assert members.retrieve(user, project_id=project).role == "member"


def test_a_role_in_a_project_counts_from_the_next_request_on(
    server: Server, admin: OpenAI, organization: str
) -> None:
    members = admin.admin.organization.projects.users
    key = server.make_key("reader", organization=organization)
    row = server.app.database.peek(
        "SELECT user_id, project_id FROM api_keys WHERE id = :id", id=f"key_{key.split('-')[2]}"
    )
    assert row is not None
    user, project = map(str, row)
    client = server.client(key, max_retries=0)

    def may_upload() -> bool:
        try:
            client.files.create(file=("a.txt", b"x"), purpose="user_data")
        except openai.PermissionDeniedError:
            return False
        return True

    assert not may_upload()  # a viewer
    members.update(user, project_id=project, role="member")
    assert all(may_upload() for _ in range(4))
    members.update(user, project_id=project, role="viewer")
    assert not any(may_upload() for _ in range(4))
    members.delete(user, project_id=project)
    for _ in range(4):
        with pytest.raises(openai.PermissionDeniedError):
            client.models.list()
