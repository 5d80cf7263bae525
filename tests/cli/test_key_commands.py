"""`keys` of a project, `admin-keys` and `service-accounts`: over HTTP with an admin key, and on the server's machine."""

import json
import time
from typing import Any

import pytest
from tests.cli import in_process
from tests.support import administration
from tests.support.administration import make_user
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.identity import key_format
from tunewarden.identity.policy import Role
from tunewarden.registry.rate_limits import NO_LIMIT

ORGANIZATION = "with-keys"
HOUR = 3600


@pytest.fixture(scope="module")
def admin_key(server: Server) -> str:
    return administration.make_admin_key(server.app, ORGANIZATION)


@pytest.fixture(scope="module")
def variables(server: Server, admin_key: str) -> dict[str, str]:
    """The environment of who administers ORGANIZATION over HTTP."""
    return {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_ADMIN_KEY": admin_key}


@pytest.fixture
def project(server: Server, admin_key: str) -> str:
    made = administration.ask(server, "POST", "/projects", admin_key, {"name": "p"})
    return str(made.json["id"])


@pytest.fixture
def member(server: Server, admin_key: str, project: str) -> str:
    user = make_user(server.app, "ada", organization=ORGANIZATION)
    fields = {"role": "member", "user_id": user}
    administration.ask(server, "POST", f"/projects/{project}/users", admin_key, fields)
    return user


def _ran(variables: dict[str, str], *arguments: str) -> str:
    ran = in_process.run_cli(*arguments, settings=variables)
    assert ran.returncode == ExitCode.DONE, ran.stderr
    return ran.stdout


def _json(variables: dict[str, str], *arguments: str) -> dict[str, Any]:
    read = json.loads(_ran(variables, *arguments, "--json"))
    assert isinstance(read, dict)
    return read


def _status(server: Server, key: str) -> int:
    return server.get("/v1/models", key=key).status


def test_a_persons_key_is_created_listed_rotated_and_revoked(
    server: Server, variables: dict[str, str], project: str, member: str
) -> None:
    where = ("--project", project)
    text = _ran(variables, "keys", "create", *where, "--user", member, "--name", "ci").strip()
    assert key_format.FORMAT.fullmatch(text)
    assert _status(server, text) == 200
    (listed,) = _ran(variables, "keys", "list", *where).splitlines()
    key_id, name, whose, access, scopes, expires, _ = listed.split("\t")
    assert (name, whose, access, scopes, expires) == ("ci", "ada", "active", "unrestricted", "-")
    dry = in_process.run_cli("keys", "rotate", key_id, *where, "--dry-run", settings=variables)
    assert (dry.returncode, dry.stdout.split("\t")[0]) == (ExitCode.DONE, key_id)
    assert len(_ran(variables, "keys", "list", *where).splitlines()) == 1
    rotated = _json(variables, "keys", "rotate", key_id, *where, "--grace", "1h")
    assert 0 < rotated["rotated"]["expires_at"] - time.time() <= HOUR
    assert rotated["name"] == "ci"
    assert (_status(server, text), _status(server, rotated["value"])) == (200, 200)
    assert _ran(variables, "keys", "revoke", key_id, *where, "--dry-run").split("\t")[0] == key_id
    assert _status(server, text) == 200
    assert _ran(variables, "keys", "revoke", key_id, *where) == f"{key_id}\n"
    assert (_status(server, text), _status(server, rotated["value"])) == (401, 200)


def test_a_rotated_key_does_not_live_longer_than_before(
    variables: dict[str, str], project: str, member: str
) -> None:
    create = ("keys", "create", "--project", project, "--user", member, "--expires", "30m")
    made = _json(variables, *create)
    rotated = _json(variables, "keys", "rotate", made["id"], "--project", project)
    assert rotated["rotated"]["expires_at"] == made["expires_at"]
    assert rotated["expires_at"] - rotated["created_at"] == HOUR // 2


def test_the_operator_rotates_any_key_in_one_step(server: Server) -> None:
    made = in_process.on(server, "keys", "create", "--role", "reader", "--expires", "2h", "--json")
    old = json.loads(made.stdout)
    ran = in_process.on(server, "keys", "rotate", old["id"], "--grace", "60", "--json")
    assert ran.returncode == ExitCode.DONE, ran.stderr
    new = json.loads(ran.stdout)
    assert new["user"] == old["user"]
    assert new["expires_at"] - new["created_at"] == 2 * HOUR
    assert 0 < new["rotated"]["expires_at"] - time.time() <= 60
    assert _status(server, new["value"]) == 200
    in_process.on(server, "keys", "revoke", old["id"])
    again = in_process.on(server, "keys", "rotate", old["id"])
    assert again.returncode == ExitCode.FAILED
    assert "not valid any more" in again.stderr
    missing = in_process.on(server, "keys", "rotate", "key_nobody")
    assert missing.returncode == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--role", "owner", "--project", "proj_x", "--user", "u"),
        ("--project", "proj_x"),
        ("--role", "owner", "--user", "u"),
        ("--role", "owner", "--expires", "0"),
        ("--role", "owner", "--expires", "tomorrow"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    ran = in_process.run_cli("keys", "create", *arguments)
    assert ran.returncode == ExitCode.USAGE


def test_admin_keys_are_created_listed_and_revoked(
    server: Server, variables: dict[str, str]
) -> None:
    made = _ran(variables, "admin-keys", "create", "--name", "terraform", "--expires", "90d")
    text = made.strip()
    own = {**variables, "TUNEWARDEN_ADMIN_KEY": text}
    listed = [line.split("\t") for line in _ran(own, "admin-keys", "list").splitlines()]
    key_id, name, _, expires, _ = listed[0]
    assert name == "terraform"
    assert expires != "-"
    assert _ran(own, "admin-keys", "revoke", key_id, "--dry-run").split("\t")[0] == key_id
    assert _ran(variables, "admin-keys", "revoke", key_id) == f"{key_id}\n"
    refused = in_process.run_cli("admin-keys", "list", settings=own)
    assert refused.returncode == ExitCode.REFUSED


def test_the_first_admin_key_is_made_on_the_servers_machine(server: Server) -> None:
    made = in_process.on(server, "admin-keys", "create")
    assert made.returncode == ExitCode.DONE, made.stderr
    key = made.stdout.strip()
    assert server.get("/v1/organization/users", key=key).status == 200
    assert _status(server, key) == 403


def test_service_accounts_are_created_given_keys_and_roles_and_deleted(
    server: Server, variables: dict[str, str], project: str
) -> None:
    text = _ran(variables, "service-accounts", "create", project, "ci", "--expires", "1d").strip()
    assert _status(server, text) == 200
    (listed,) = _ran(variables, "service-accounts", "list", project).splitlines()
    account, name, role = listed.split("\t")
    assert (name, role) == ("ci", "member")
    create_key = ("service-accounts", "create-key", project, account, "--scope", "api.files.read")
    other = _json(variables, *create_key)
    assert _status(server, other["value"]) == 403
    rotated = _json(variables, "keys", "rotate", other["id"], "--project", project)
    assert server.get("/v1/files", key=rotated["value"]).status == 200
    assert _status(server, rotated["value"]) == 403, "its scopes are those of the old one"
    changed = _ran(variables, "service-accounts", "set-role", project, account, "none")
    assert changed == f"{account}\tnone\n"
    assert _status(server, text) == 403
    dry = _ran(variables, "service-accounts", "delete", project, account, "--dry-run")
    assert dry.split("\t")[0] == account
    deleted = _ran(variables, "service-accounts", "delete", project, account, "--yes")
    assert deleted == f"{account}\n"
    assert _status(server, text) == 401
    only = _json(variables, "service-accounts", "create", project, "later", "--no-key")
    assert (only["role"], only["api_key"]) == ("none", None)


def test_a_rotated_key_keeps_its_rate_limit(
    server: Server, variables: dict[str, str], project: str, member: str
) -> None:
    made = _json(variables, "keys", "create", "--project", project, "--user", member)
    limits = ("projects", "limits", "set-key", project)
    _json(variables, *limits, made["id"], "--requests", "7")
    rotated = _json(variables, "keys", "rotate", made["id"], "--project", project)
    limit = _json(variables, *limits, rotated["id"])
    assert (limit["max_requests_per_1_minute"], limit["max_tokens_per_1_minute"]) == (7, NO_LIMIT)
    ran = in_process.on(server, "keys", "rotate", rotated["id"], "--json")
    assert ran.returncode == ExitCode.DONE, ran.stderr
    again = _json(variables, *limits, json.loads(ran.stdout)["id"])
    assert (again["max_requests_per_1_minute"], again["max_tokens_per_1_minute"]) == (7, NO_LIMIT)


def test_an_expired_or_revoked_key_is_not_rotated(
    server: Server, variables: dict[str, str], project: str, member: str
) -> None:
    where = ("--project", project)
    expired, revoked = (
        _json(variables, "keys", "create", *where, "--user", member, "--expires", "1h")["id"]
        for _ in range(2)
    )
    with server.app.database.write() as tx:
        tx.run("UPDATE api_keys SET expires_at = created_at WHERE id = :id", id=expired)
    _ran(variables, "keys", "revoke", revoked, *where)
    before = _ran(variables, "keys", "list", *where)
    for key_id, status, said in (
        (expired, ExitCode.FAILED, "has expired"),
        (revoked, ExitCode.NOT_FOUND, "No such API key"),
    ):
        ran = in_process.run_cli("keys", "rotate", key_id, *where, settings=variables)
        assert ran.returncode == status
        assert said in ran.stderr
    assert _ran(variables, "keys", "list", *where) == before


def test_an_owner_makes_an_admin_key_for_another_by_address(
    server: Server, variables: dict[str, str]
) -> None:
    user = make_user(
        server.app, "Eve", email="eve@example.com", role=Role.OWNER, organization=ORGANIZATION
    )
    made = _json(variables, "admin-keys", "create", "--user", "eve@example.com")
    assert made["owner"]["id"] == user
    refused = in_process.run_cli("admin-keys", "create", "--organization", "x", settings=variables)
    assert refused.returncode == ExitCode.USAGE


def test_the_operator_makes_admin_keys_of_any_organization(server: Server) -> None:
    first, second = (
        make_user(server.app, name, role=Role.OWNER, organization="elsewhere")
        for name in ("first", "second")
    )
    reader = make_user(server.app, "reader", organization="elsewhere")
    create = ("admin-keys", "create", "--organization", "elsewhere", "--json")
    for user, options in ((first, ()), (second, ("--user", second))):
        ran = in_process.on(server, *create, *options)
        assert ran.returncode == ExitCode.DONE, ran.stderr
        made = json.loads(ran.stdout)
        assert made["owner"]["id"] == user
        reply = server.get("/v1/organization/users", key=made["value"])
        assert {one["id"] for one in reply.json["data"]} == {first, second, reader}
    demoted = in_process.on(server, *create, "--user", reader)
    assert (demoted.returncode, "only Owners" in demoted.stderr) == (ExitCode.FAILED, True)
    unknown = in_process.on(server, "admin-keys", "create", "--organization", "nowhere")
    assert (unknown.returncode, "no organization" in unknown.stderr) == (ExitCode.NOT_FOUND, True)
    assert in_process.on(server, "organizations", "create", "empty").returncode == ExitCode.DONE
    without = in_process.on(server, "admin-keys", "create", "--organization", "empty")
    assert without.returncode == ExitCode.NOT_FOUND
    assert "tunewarden keys create --role owner --organization empty" in without.stderr


def test_the_operator_is_not_locked_out_by_the_owner_key(server: Server) -> None:
    owner_key, admin_key = server.data / "owner.key", server.data / "admin.key"
    kept = owner_key.read_text("utf-8")
    reader = in_process.on(server, "keys", "create", "--role", "reader").stdout
    try:
        for text in (reader, f"{reader.strip()[:-4]}0000"):
            owner_key.write_text(text, "utf-8")
            admin_key.unlink(missing_ok=True)
            refused = in_process.on(server, "users", "list")
            assert refused.returncode == ExitCode.REFUSED
            assert f"tunewarden admin-keys create --data {server.data}" in refused.stderr
            made = in_process.on(server, "admin-keys", "create")
            assert made.returncode == ExitCode.DONE, made.stderr
            key = made.stdout.strip()
            assert server.get("/v1/organization/users", key=key).status == 200
    finally:
        owner_key.write_text(kept, "utf-8")


def test_a_keys_scopes_and_expiry_and_an_accounts_name_are_changed(
    variables: dict[str, str], project: str
) -> None:
    made = _json(variables, "service-accounts", "create", project, "ci")
    where = (made["api_key"]["id"], "--project", project)
    scoped = _json(variables, "keys", "update", *where, "--scope", "api.model.read")
    assert (scoped["scopes"], scoped["expires_at"]) == (["api.model.read"], None)
    short = _json(variables, "keys", "update", *where, "--expires", "1h")
    assert short["scopes"] == ["api.model.read"]
    assert 3590 < short["expires_at"] - time.time() <= 3601
    free = _json(variables, "keys", "update", *where, "--unrestricted")
    assert (free["scopes"], free["expires_at"]) == ([], short["expires_at"])
    assert where[0] in _ran(variables, "keys", "update", *where, "--expires", "2h")
    for wrong in ((), ("--unrestricted", "--scope", "api.model.read")):
        ran = in_process.run_cli("keys", "update", *where, *wrong, settings=variables)
        assert ran.returncode == ExitCode.USAGE
    account = made["id"]
    renamed = _ran(variables, "service-accounts", "rename", project, account, "deploy")
    assert renamed == f"{account}\tdeploy\n"
    assert "deploy" in _ran(variables, "service-accounts", "list", project)
