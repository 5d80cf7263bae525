"""`users`, `projects` and `organizations`: over HTTP with an admin key, and on the server's machine."""

import json
import stat

import pytest
from tests.cli import in_process
from tests.support import administration
from tests.support.administration import make_user
from tests.support.servers import LOCAL_BASE, Server, run_cli

from tunewarden.cli.exit_codes import ExitCode

ORGANIZATION = "commanded"


@pytest.fixture(scope="module")
def variables(server: Server) -> dict[str, str]:
    """The environment of who administers ORGANIZATION over HTTP."""
    key = administration.make_admin_key(server.app, ORGANIZATION)
    return {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_ADMIN_KEY": key}


def _lines(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_people_are_listed_shown_changed_and_removed(
    server: Server, variables: dict[str, str]
) -> None:
    def run(*arguments: str) -> str:
        ran = in_process.run_cli("users", *arguments, settings=variables)
        assert ran.returncode == ExitCode.DONE, ran.stderr
        return ran.stdout

    user = make_user(server.app, "Ada", email="ada@example.com", organization=ORGANIZATION)
    shown = [user, "ada@example.com", "Ada", "reader"]
    assert shown in _lines(run("list"))
    assert json.loads(run("list", "--limit", "1", "--json"))["data"][0]["id"] == user
    assert "role: reader\n" in run("show", "Ada@Example.com")
    dry = run("set-role", "ada@example.com", "owner", "--dry-run")
    assert "role: reader\n" in dry
    assert json.loads(run("show", user, "--json"))["role"] == "reader"
    assert run("set-role", "ada@example.com", "owner") == f"{user}\towner\n"
    assert json.loads(run("show", user, "--json"))["role"] == "owner"
    assert f"id: {user}\n" in run("remove", user, "--dry-run")
    assert run("show", user)
    assert run("remove", "ada@example.com", "--yes") == f"{user}\n"
    gone = in_process.run_cli("users", "show", user, settings=variables)
    assert gone.returncode == ExitCode.NOT_FOUND
    nobody = in_process.run_cli("users", "show", "ada@example.com", settings=variables)
    assert nobody.returncode == ExitCode.NOT_FOUND


def test_limits_and_quotas_are_listed_and_set(server: Server, variables: dict[str, str]) -> None:
    def run(*arguments: str) -> str:
        ran = in_process.run_cli("projects", *arguments, settings=variables)
        assert ran.returncode == ExitCode.DONE, ran.stderr
        return ran.stdout

    key = server.make_key("owner", organization=ORGANIZATION)
    project = json.loads(run("list", "--json"))["data"][-1]["id"]
    base = LOCAL_BASE
    assert [base, "none", "none"] in _lines(run("limits", "list", project))
    set_ = run("limits", "set", project, base, "--requests", "600", "--tokens", "none")
    assert _lines(set_) == [[base, "600", "none"]]
    assert [base, "600", "none"] in _lines(run("limits", "list", project))
    key_id = f"key_{key.split('-')[2]}"
    set_ = run("limits", "set-key", project, key_id, "--tokens", "5000")
    assert _lines(set_) == [[key_id, "none", "5000"]]
    shown = json.loads(run("limits", "set-key", project, key_id, "--json"))
    assert shown["max_tokens_per_1_minute"] == 5000
    assert ["files", "0", "20"] in _lines(run("quota", project, "--files", "20"))
    assert json.loads(run("quota", project, "--json"))["max_files"] == 20
    refused = in_process.run_cli(
        "projects", "limits", "set", project, base, "--requests", "0", settings=variables
    )
    assert refused.returncode == ExitCode.USAGE


def test_projects_are_listed_created_renamed_and_archived_with_their_people(
    server: Server, variables: dict[str, str]
) -> None:
    def run(*arguments: str) -> str:
        ran = in_process.run_cli("projects", *arguments, settings=variables)
        assert ran.returncode == ExitCode.DONE, ran.stderr
        return ran.stdout

    user = make_user(server.app, "Bob", email="bob@example.com", organization=ORGANIZATION)
    project = run("create", "support").strip()
    assert run("rename", project, "help desk") == f"{project}\n"
    assert [project, "help desk", "active"] in _lines(run("list"))
    assert run("users", "add", project, "bob@example.com", "member") == f"{user}\tmember\n"
    assert run("users", "set-role", project, user, "viewer") == f"{user}\tviewer\n"
    assert _lines(run("users", "list", project)) == [[user, "bob@example.com", "Bob", "viewer"]]
    assert run("users", "remove", project, "bob@example.com", "--dry-run") == f"{user}\tviewer\n"
    assert run("users", "remove", project, "bob@example.com") == f"{user}\n"
    assert run("users", "list", project) == ""
    assert f"id: {project}\n" in run("archive", project, "--dry-run")
    assert run("archive", project, "--yes") == f"{project}\n"
    assert project not in run("list")
    assert [project, "help desk", "archived"] in _lines(run("list", "--archived"))


def test_refusals_have_their_exit_status(server: Server, variables: dict[str, str]) -> None:
    def status(*arguments: str, settings: dict[str, str] = variables) -> int:
        return in_process.run_cli(*arguments, settings=settings).returncode

    default = json.loads(
        in_process.run_cli("projects", "list", "--json", settings=variables).stdout
    )["data"][-1]["id"]
    assert status("projects", "archive", default, "--yes") == ExitCode.CONFLICT
    assert status("projects", "users", "list", "proj_nobody") == ExitCode.NOT_FOUND
    assert status("users", "set-role", "user_nobody", "king") == ExitCode.USAGE
    with_api_key = {**variables, "TUNEWARDEN_ADMIN_KEY": server.owner_key}
    assert status("users", "list", settings=with_api_key) == ExitCode.REFUSED
    without = {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_API_KEY": server.owner_key}
    assert status("users", "list", settings=without) == ExitCode.REFUSED
    openai = {"OPENAI_BASE_URL": "https://api.openai.com/v1", "OPENAI_ADMIN_KEY": "sk-x"}
    assert status("users", "list", settings=openai) == ExitCode.REFUSED


def test_a_wrong_id_removes_nobody(server: Server, variables: dict[str, str]) -> None:
    user = make_user(server.app, "Eve", organization=ORGANIZATION)
    ran = run_cli("users", "remove", user, stdin="user_other\n", settings=variables)
    assert ran.returncode == ExitCode.FAILED
    assert "Nothing was changed." in ran.stderr
    typed = run_cli("users", "remove", user, stdin=f"{user}\n", settings=variables)
    assert typed.stdout == f"{user}\n", typed.stderr


def test_on_the_servers_machine_an_admin_key_is_made_once_and_anew_when_it_was_revoked(
    server: Server,
) -> None:
    file = server.data / "admin.key"
    file.unlink(missing_ok=True)
    listed = in_process.on(server, "users", "list", "--json")
    assert json.loads(listed.stdout)["data"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = file.read_text("utf-8")
    assert in_process.on(server, "projects", "list").returncode == ExitCode.DONE
    assert file.read_text("utf-8") == first
    with server.app.database.write() as tx:
        tx.run("UPDATE admin_api_keys SET revoked_at = 1 WHERE id = :id", id=_id(first))
    assert in_process.on(server, "projects", "list").returncode == ExitCode.DONE
    assert file.read_text("utf-8") != first
    row = server.app.database.peek(
        "SELECT u.name, u.role FROM admin_api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = :id",
        id=_id(file.read_text("utf-8")),
    )
    assert row == ("owner", "owner")


def _id(key: str) -> str:
    return f"adminkey_{key.split('-')[3]}"


def test_an_invite_is_made_accepted_and_revoked(server: Server, variables: dict[str, str]) -> None:
    def run(*arguments: str) -> str:
        ran = in_process.run_cli("invites", *arguments, settings=variables)
        assert ran.returncode == ExitCode.DONE, ran.stderr
        return ran.stdout

    project = in_process.run_cli("projects", "create", "invited", settings=variables).stdout.strip()
    created = in_process.run_cli(
        "invites", "create", "new@example.com", "--role", "reader", "--project", project,
        settings=variables,
    )  # fmt: skip
    link = created.stdout.strip()
    assert link.startswith(f"{server.url.removesuffix('/v1')}/invites/")
    assert "Hand the link out yourself." in created.stderr
    (pending,) = [line for line in _lines(run("list")) if line[1] == "new@example.com"]
    assert pending[2:4] == ["reader", "pending"]
    # Without any key in the environment.
    accepted = in_process.run_cli("invites", "accept", link, "--name", "New Person")
    assert accepted.returncode == ExitCode.DONE, accepted.stderr
    key = accepted.stdout.strip()
    assert server.client(key).models.list().object == "list"
    again = in_process.run_cli("invites", "accept", link, "--name", "New Person")
    assert again.returncode == ExitCode.NOT_FOUND
    members = in_process.run_cli("projects", "users", "list", project, settings=variables).stdout
    assert [line[1:] for line in _lines(members)] == [["new@example.com", "New Person", "member"]]
    other = json.loads(
        run("create", "other@example.com", "--role", "owner", "--project", "none", "--json")
    )
    assert other["projects"] == []
    assert _lines(run("revoke", other["id"], "--dry-run"))[0][0] == other["id"]
    assert run("revoke", other["id"]) == f"{other['id']}\n"
    revoked = in_process.run_cli("invites", "accept", other["link"], "--name", "x")
    assert revoked.returncode == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("link", "status"),
    [
        ("nothing", ExitCode.FAILED),
        ("https://api.openai.com/invites/abc", ExitCode.REFUSED),
        ("http://127.0.0.1:9/invites/abc", ExitCode.UNAVAILABLE),
    ],
)
def test_a_link_that_leads_nowhere_is_refused(link: str, status: ExitCode) -> None:
    ran = in_process.run_cli("invites", "accept", link, "--name", "x")
    assert ran.returncode == status, ran.stderr


def test_organizations_are_the_operators(server: Server, variables: dict[str, str]) -> None:
    made = in_process.on(server, "organizations", "create", "brand-new")
    assert made.returncode == ExitCode.DONE, made.stderr
    listed = _lines(in_process.on(server, "organizations", "list").stdout)
    assert [made.stdout.strip(), "brand-new"] in [line[:2] for line in listed]
    again = in_process.on(server, "organizations", "create", "brand-new")
    assert again.returncode == ExitCode.CONFLICT
    bad = in_process.on(server, "organizations", "create", "no spaces")
    assert bad.returncode == ExitCode.FAILED
    over_http = in_process.run_cli("organizations", "list", settings=variables)
    assert over_http.returncode == ExitCode.REFUSED
    first = in_process.on(
        server, "keys", "create", "--role", "owner", "--organization", "brand-new"
    )
    assert first.returncode == ExitCode.DONE
