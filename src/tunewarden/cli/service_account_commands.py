"""Commands about service accounts: users of one project who are no people."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import confirm, was_dry_run
from tunewarden.cli.durations import expires_option
from tunewarden.cli.new_keys import show_key
from tunewarden.cli.options import (
    administering_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table

FIELDS = ("id", "name", "role")
PROJECT = click.argument("project_id")
ACCOUNT = click.argument("account_id")


@click.group("service-accounts")
def service_accounts() -> None:
    """Service accounts: users of one project who are no people. None is ever an Owner, so none deletes."""


@service_accounts.command("list")
@PROJECT
@limit_option
@json_option
@administering_option
@refusing
def accounts_list(project_id: str, limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List the service accounts of a project, newest first: id, name, role."""
    with client.administering(data) as server:
        found = server.pages(*_path(project_id), limit=limit, page_size=ADMINISTRATION_PAGE_SIZE)
    if as_json:
        show_json(found)
        return
    show_table(FIELDS, ([one[name] for name in FIELDS] for one in found["data"]))
    say_if_more(found)


@service_accounts.command(
    "create", epilog="\b\nExample:\n  tunewarden service-accounts create proj_… ci --expires 90d"
)
@PROJECT
@click.argument("name")
@click.option("--no-key", is_flag=True, help="Create it without an API key and without a role.")
@expires_option
@json_option
@administering_option
@refusing
def accounts_create(
    project_id: str,
    name: str,
    expires: int | None,
    data: Path | None,
    *,
    no_key: bool,
    as_json: bool,
) -> None:
    """Create a service account, a member of its project, with an API key, and print the key.

    The key cannot be shown again.
    """
    fields: Object = {"name": name, "create_service_account_only": no_key}
    with client.administering(data) as server:
        made = server.post(*_path(project_id), fields={**fields, "expires_in_seconds": expires})
    if as_json:
        show_json(made)
    elif made["api_key"] is None:
        _say(made, as_json=False)
    else:
        whose = f"the service account {made['id']}"
        show_key(made["api_key"], made["api_key"]["value"], whose, as_json=False)


@service_accounts.command("create-key")
@PROJECT
@ACCOUNT
@click.option("--name", help="For people.")
@click.option("--scope", "scopes", multiple=True, help="Restrict the key; repeatable.")
@expires_option
@json_option
@administering_option
@refusing
def accounts_create_key(  # noqa: PLR0917  click passes each by name
    project_id: str,
    account_id: str,
    name: str | None,
    scopes: tuple[str, ...],
    expires: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Create another API key of a service account and print it; it cannot be shown again."""
    fields: Object = {"name": name, "scopes": list(scopes), "expires_in_seconds": expires}
    with client.administering(data) as server:
        made = server.post(*_path(project_id), account_id, "api_keys", fields=fields)
    show_key(made, made["value"], f"the service account {account_id}", as_json=as_json)


@service_accounts.command("set-role")
@PROJECT
@ACCOUNT
@click.argument("role", type=click.Choice(["owner", "member", "none"]))
@json_option
@administering_option
@refusing
def accounts_set_role(
    project_id: str, account_id: str, role: str, data: Path | None, *, as_json: bool
) -> None:
    """Give a service account another role in its project: from the next request on."""
    with client.administering(data) as server:
        changed = server.post(*_path(project_id), account_id, fields={"role": role})
    _say(changed, as_json=as_json)


@service_accounts.command("rename")
@PROJECT
@ACCOUNT
@click.argument("name")
@json_option
@administering_option
@refusing
def accounts_rename(
    project_id: str, account_id: str, name: str, data: Path | None, *, as_json: bool
) -> None:
    """Give a service account another name."""
    with client.administering(data) as server:
        changed = server.post(*_path(project_id), account_id, fields={"name": name})
    if as_json:
        show_json(changed)
    else:
        click.echo(f"{changed['id']}\t{plain(changed['name'])}")


@service_accounts.command("delete")
@PROJECT
@ACCOUNT
@yes_option
@dry_run_option
@json_option
@administering_option
@refusing
def accounts_delete(
    project_id: str, account_id: str, data: Path | None, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete a service account: its API keys are revoked. Models, files and jobs that it made stay."""
    with client.administering(data) as server:
        account = server.get(*_path(project_id), account_id)
        if dry_run:
            _say(account, as_json=as_json)
            was_dry_run("deleted")
            return
        if not yes:
            said = f"This deletes {plain(account['name'])} and revokes all of its API keys."
            confirm(said, account["id"])
        deleted = server.delete(*_path(project_id), account_id)
    if as_json:
        show_json(deleted)
    else:
        click.echo(deleted["id"])


def _path(project_id: str) -> tuple[str, ...]:
    return "organization", "projects", project_id, "service_accounts"


def _say(account: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(account)
    else:
        click.echo(f"{account['id']}\t{account['role']}")
