"""Commands about who is in a project."""

from pathlib import Path

import click

from tunewarden.cli import client, people
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.options import (
    administering_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import say_if_more, show_json, show_table

PROJECT = click.argument("project_id")
USER = click.argument("user")
ROLE = click.argument("role", type=click.Choice(["owner", "member", "viewer"]))


@click.group("users")
def project_users() -> None:
    """Who is in a project. USER is an id or an address."""


@project_users.command("list")
@PROJECT
@limit_option
@json_option
@administering_option
@refusing
def project_users_list(
    project_id: str, limit: int | None, data: Path | None, *, as_json: bool
) -> None:
    """List the people of a project, newest first: id, address, name, role there."""
    with client.administering(data) as server:
        found = server.pages(*_path(project_id), limit=limit, page_size=ADMINISTRATION_PAGE_SIZE)
    if as_json:
        show_json(found)
        return
    rows = ((one["id"], one["email"] or "-", one["name"], one["role"]) for one in found["data"])
    show_table(people.USER_FIELDS, rows)
    say_if_more(found)


@project_users.command(
    "add", epilog="\b\nExample:\n  tunewarden projects users add proj_… ada@example.com member"
)
@PROJECT
@USER
@ROLE
@json_option
@administering_option
@refusing
def project_users_add(
    project_id: str, user: str, role: str, data: Path | None, *, as_json: bool
) -> None:
    """Add a person of the organization to a project."""
    named = "email" if "@" in user else "user_id"
    with client.administering(data) as server:
        added = server.post(*_path(project_id), fields={named: user, "role": role})
    _say(added, as_json=as_json)


@project_users.command("set-role")
@PROJECT
@USER
@ROLE
@json_option
@administering_option
@refusing
def project_users_set_role(
    project_id: str, user: str, role: str, data: Path | None, *, as_json: bool
) -> None:
    """Give a person in a project another role there: from the next request on."""
    with client.administering(data) as server:
        user_id = people.id_of(server, user)
        changed = server.post(*_path(project_id), user_id, fields={"role": role})
    _say(changed, as_json=as_json)


@project_users.command("remove")
@PROJECT
@USER
@dry_run_option
@json_option
@administering_option
@refusing
def project_users_remove(
    project_id: str, user: str, data: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Remove a person from a project. The person stays in the organization."""
    with client.administering(data) as server:
        user_id = people.id_of(server, user)
        if dry_run:
            _say(server.get(*_path(project_id), user_id), as_json=as_json)
            was_dry_run("removed")
            return
        removed = server.delete(*_path(project_id), user_id)
    if as_json:
        show_json(removed)
    else:
        click.echo(removed["id"])


def _path(project_id: str) -> tuple[str, ...]:
    return "organization", "projects", project_id, "users"


def _say(member: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(member)
    else:
        click.echo(f"{member['id']}\t{member['role']}")
