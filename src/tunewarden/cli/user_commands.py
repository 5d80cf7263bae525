"""Commands about the people of an organization."""

from pathlib import Path

import click

from tunewarden.cli import client, people
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import confirm, was_dry_run
from tunewarden.cli.options import (
    administering_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table, shown_time

USER = click.argument("user")


@click.group()
def users() -> None:
    """People of the organization. USER is an id or an address."""


@users.command("list")
@limit_option
@json_option
@administering_option
@refusing
def users_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List people, newest first: id, address, name, role."""
    with client.administering(data) as server:
        found = server.pages(
            "organization", "users", limit=limit, page_size=ADMINISTRATION_PAGE_SIZE
        )
    if as_json:
        show_json(found)
        return
    show_table(people.USER_FIELDS, (_row(one) for one in found["data"]))
    say_if_more(found)


@users.command("show")
@USER
@json_option
@administering_option
@refusing
def users_show(user: str, data: Path | None, *, as_json: bool) -> None:
    """Show one person."""
    with client.administering(data) as server:
        _show(people.find(server, user), as_json=as_json)


@users.command("set-role", epilog="\b\nExample:\n  tunewarden users set-role ada@example.com owner")
@USER
@click.argument("role", type=click.Choice(["owner", "reader"]))
@dry_run_option
@json_option
@administering_option
@refusing
def users_set_role(
    user: str, role: str, data: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Make a person an Owner of the organization, or a reader: from the next request on.

    Who becomes a reader loses all admin keys for good, and the invites that nobody accepted yet.
    """
    with client.administering(data) as server:
        if dry_run:
            _show(people.find(server, user), as_json=as_json)
            was_dry_run("changed")
            return
        user_id = people.id_of(server, user)
        changed = server.post("organization", "users", user_id, fields={"role": role})
    if as_json:
        show_json(changed)
    else:
        click.echo(f"{changed['id']}\t{changed['role']}")


@users.command("remove", epilog="\b\nExample:\n  tunewarden users remove ada@example.com --dry-run")
@USER
@yes_option
@dry_run_option
@json_option
@administering_option
@refusing
def users_remove(user: str, data: Path | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove a person: name and address are cleared, all keys of the person are revoked.

    Models, files and jobs that the person made stay.
    """
    with client.administering(data) as server:
        person = people.find(server, user)
        if dry_run:
            _show(person, as_json=as_json)
            was_dry_run("removed")
            return
        if not yes:
            confirm(
                f"This removes {plain(person['name'])} and revokes all keys of this user.",
                person["id"],
            )
        removed = server.delete("organization", "users", person["id"])
    if as_json:
        show_json(removed)
    else:
        click.echo(removed["id"])


def _row(user: Object) -> tuple[str, ...]:
    return user["id"], user["email"] or "-", user["name"], user["role"]


def _show(user: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(user)
        return
    for name in people.USER_FIELDS:
        click.echo(f"{name}: {plain(user[name] or '-')}")
    click.echo(f"added: {shown_time(user['added_at'])}")
