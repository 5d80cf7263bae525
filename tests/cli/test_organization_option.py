"""`--organization` of administration on the server's machine: the operator acts for any organization, with no key left."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.support import administration, servers
from tests.support.administration import make_user
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.identity.policy import Role

ORGANIZATION = "research"


@pytest.fixture(scope="module")
def owner(server: Server) -> str:
    return make_user(server.app, "first owner", role=Role.OWNER, organization=ORGANIZATION)


def _json(server: Server, *arguments: str) -> Any:
    ran = in_process.on(server, *arguments, "--organization", ORGANIZATION, "--json")
    assert ran.returncode == ExitCode.DONE, ran.stderr
    return json.loads(ran.stdout)


def _valid_keys(server: Server) -> int:
    row = server.app.database.peek(
        "SELECT COUNT(*) FROM admin_api_keys k JOIN organizations o ON o.id = k.organization_id"
        " WHERE o.name = :name AND k.revoked_at IS NULL",
        name=ORGANIZATION,
    )
    assert row is not None
    return int(row[0])


def test_people_projects_invites_and_events_of_another_organization(
    server: Server, owner: str
) -> None:
    ada = make_user(server.app, "Ada", email="ada@research.example", organization=ORGANIZATION)
    assert {one["id"] for one in _json(server, "users", "list")["data"]} >= {owner, ada}
    assert _json(server, "users", "show", "ada@research.example")["id"] == ada
    project = _json(server, "projects", "create", "lab")["id"]
    assert _json(server, "projects", "users", "add", project, ada, "member")["id"] == ada
    _json(server, "projects", "limits", "list", project)
    account = _json(server, "service-accounts", "create", project, "robot")
    assert server.get("/v1/models", key=account["api_key"]["value"]).status == 200
    invite = _json(server, "invites", "create", "bob@research.example", "--role", "reader")
    assert invite["link"]
    _json(server, "usage")
    assert _json(server, "audit", "retention") == {
        "object": "organization.audit_retention",
        "days": None,
    }
    events = _json(server, "audit", "list", "--type", "project.created")["data"]
    assert events[0]["project.created"]["id"] == project
    # The first organization has none of it.
    first = in_process.on(server, "projects", "list", "--json")
    assert project not in first.stdout
    assert _valid_keys(server) == 0, "the key of each command was revoked"


def test_keys_of_a_project_of_another_organization(server: Server, owner: str) -> None:
    project = _json(server, "projects", "create", "keys")["id"]
    made = _json(server, "keys", "create", "--project", project, "--user", owner)
    assert server.get("/v1/models", key=made["value"]).status == 200
    new = _json(server, "keys", "rotate", made["id"], "--project", project)
    listed = _json(server, "keys", "list", "--project", project)["data"]
    assert {one["id"] for one in listed} == {made["id"], new["id"]}
    shown = in_process.on(
        server, "keys", "revoke", new["id"], "--project", project, "--organization", ORGANIZATION
    )
    assert shown.returncode == ExitCode.DONE, shown.stderr
    assert server.get("/v1/models", key=new["value"]).status == 401
    assert _valid_keys(server) == 0, "the key of each command was revoked"
    # Of the first organization it is not, and without a project all are the operator's.
    foreign = in_process.on(server, "keys", "list", "--project", project)
    assert foreign.returncode == ExitCode.NOT_FOUND, foreign.stderr
    wrong = in_process.on(server, "keys", "list", "--organization", ORGANIZATION)
    assert wrong.returncode == ExitCode.USAGE


def test_the_key_of_a_command_is_revoked_when_it_fails_too(server: Server, owner: str) -> None:
    last = in_process.on(server, "users", "remove", owner, "--yes", "--organization", ORGANIZATION)
    assert last.returncode == ExitCode.CONFLICT, last.stderr
    assert _valid_keys(server) == 0
    with server.app.database.read() as tx:
        rows = tx.rows(
            "SELECT e.type, e.actor_key_id FROM audit_events e JOIN organizations o ON o.id = e.organization_id"
            " WHERE o.name = :name AND e.type LIKE 'admin_api_key.%'",
            name=ORGANIZATION,
        )
    types = [row[0] for row in rows]
    assert types.count("admin_api_key.created") == types.count("admin_api_key.deleted") > 0
    assert {row[1] for row in rows} == {None}, "by the server's operator"


def test_an_organization_that_is_unknown_or_has_no_owner_is_refused(server: Server) -> None:
    unknown = in_process.on(server, "users", "list", "--organization", "nowhere")
    assert (unknown.returncode, "no organization" in unknown.stderr) == (ExitCode.NOT_FOUND, True)
    assert in_process.on(server, "organizations", "create", "ownerless").returncode == 0
    without = in_process.on(server, "users", "list", "--organization", "ownerless")
    assert without.returncode == ExitCode.NOT_FOUND
    assert "tunewarden keys create --role owner --organization ownerless" in without.stderr


def test_over_http_an_admin_key_names_its_organization_itself(server: Server) -> None:
    settings = {
        "TUNEWARDEN_URL": server.url,
        "TUNEWARDEN_ADMIN_KEY": administration.make_admin_key(server.app),
    }
    ran = in_process.run_cli("users", "list", "--organization", ORGANIZATION, settings=settings)
    assert (ran.returncode, "--data" in ran.stderr) == (ExitCode.FAILED, True)


def test_it_works_without_a_server_and_without_the_owner_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    user = make_user(app, "alone", role=Role.OWNER, organization=ORGANIZATION)
    (data / "owner.key").unlink()
    command = ("users", "list", "--organization", ORGANIZATION, "--json", "--data", str(data))
    ran = in_process.run_cli(*command)
    assert ran.returncode == ExitCode.DONE, ran.stderr
    assert [one["id"] for one in json.loads(ran.stdout)["data"]] == [user]
    assert not (data / "admin.key").exists()


@pytest.mark.parametrize("command", [("users", "list"), ("admin-keys", "create", "--name", "x")])
def test_an_empty_name_is_no_organization_and_leaves_no_key(
    server: Server, owner: str, command: tuple[str, ...]
) -> None:
    keys = "SELECT COUNT(*) FROM admin_api_keys"
    before = server.app.database.peek(keys)
    ran = in_process.on(server, *command, "--organization", "")
    assert ran.returncode == ExitCode.NOT_FOUND, ran.stderr
    assert server.app.database.peek(keys) == before
