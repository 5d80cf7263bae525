"""Commands about invites."""

from pathlib import Path

import click

from tunewarden.cli import client, invite_link
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.options import (
    administering_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import say_if_more, show_json, show_table, shown_time

NONE = "none"


@click.group()
def invites() -> None:
    """Links that make users."""


@invites.command(
    "create", epilog="\b\nExample:\n  tunewarden invites create ada@example.com --role reader"
)
@click.argument("email")
@click.option(
    "--role",
    type=click.Choice(["owner", "reader"]),
    required=True,
    help="The role in the organization.",
)
@click.option(
    "--project",
    "projects",
    multiple=True,
    metavar="ID[:ROLE]",
    help="A project to be in, as member or owner; repeatable. [default: the default project; none: in none]",
)
@json_option
@administering_option
@refusing
def invites_create(
    email: str, role: str, projects: tuple[str, ...], data: Path | None, *, as_json: bool
) -> None:
    """Invite an address and print the link, which is shown only once, works once, and for 7 days."""
    fields: Object = {"email": email, "role": role}
    if projects:
        fields["projects"] = [_grant(one) for one in projects if one != NONE]
    with client.administering(data) as server:
        made = server.post("organization", "invites", fields=fields)
    mail = made["mail"]
    if as_json:
        show_json(made)
    else:
        click.echo(made["link"])
    if mail["status"] == "sent":
        click.echo(f"{made['id']}: the link was mailed.", err=True)
    elif mail["status"] == "failed":
        click.echo(f"{made['id']}: {mail['reason']} Hand the link out yourself.", err=True)
    else:
        click.echo(f"{made['id']}: no mail server is set up. Hand the link out yourself.", err=True)


@invites.command("list")
@limit_option
@json_option
@administering_option
@refusing
def invites_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List invites, newest first: id, address, role, status, when the link ends."""
    with client.administering(data) as server:
        found = server.pages(
            "organization", "invites", limit=limit, page_size=ADMINISTRATION_PAGE_SIZE
        )
    if as_json:
        show_json(found)
        return
    names = ("id", "email", "role", "status", "ends")
    show_table(names, (_row(one) for one in found["data"]))
    say_if_more(found)


@invites.command("revoke", epilog="\b\nExample:\n  tunewarden invites revoke invite-…")
@click.argument("invite_id")
@dry_run_option
@json_option
@administering_option
@refusing
def invites_revoke(invite_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Withdraw an invite: its link does nothing from then on."""
    with client.administering(data) as server:
        if dry_run:
            invite = server.get("organization", "invites", invite_id)
            if as_json:
                show_json(invite)
            else:
                show_table((), [_row(invite)])
            was_dry_run("revoked")
            return
        revoked = server.delete("organization", "invites", invite_id)
    if as_json:
        show_json(revoked)
    else:
        click.echo(revoked["id"])


@invites.command(
    "accept",
    epilog="\b\nExample:\n  tunewarden invites accept https://models.example/invites/… --name 'Ada Lovelace'",
)
@click.argument("link")
@click.option(
    "--name", prompt="Your name", help="Your name, for people. [default: it is asked for]"
)
@json_option
@refusing
def invites_accept(link: str, name: str, *, as_json: bool) -> None:
    """Accept an invite and print your API key, which is shown only once. Needs no key."""
    accepted = invite_link.accept(link, name)
    if as_json:
        show_json(accepted)
        return
    said = f"You are {accepted['user_id']} in {accepted['organization']}."
    if accepted["api_key"] is None:
        click.echo(f"{said} You are in no project yet: an Owner adds you to one.", err=True)
        return
    click.echo(f"{said} Your API key is shown only once:", err=True)
    click.echo(accepted["api_key"])


def _grant(project: str) -> Object:
    project_id, _, role = project.partition(":")
    return {"id": project_id, "role": role or "member"}


def _row(invite: Object) -> tuple[str, ...]:
    ends = shown_time(invite["expires_at"])
    return invite["id"], invite["email"], invite["role"], invite["status"], ends
