"""Commands about the keys that administer an organization."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import client, people
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.durations import expires_option
from tunewarden.cli.new_keys import show_key
from tunewarden.cli.options import (
    administering_option,
    data_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import say_if_more, show_json, show_table, shown_time

FIELDS = ("id", "name", "owner", "expires", "last used")
KEYS = ("organization", "admin_api_keys")


@click.group("admin-keys")
def admin_keys() -> None:
    """Keys that administer the organization, and do nothing else."""


@admin_keys.command(
    "create",
    epilog="\b\nExamples:\n  tunewarden admin-keys create --name terraform --expires 90d"
    "\n  tunewarden admin-keys create --name ada --user ada@example.com"
    "\n  tunewarden admin-keys create --data DIR --organization research",
)
@click.option("--name", default="admin key", show_default=True, help="For people.")
@click.option(
    "--user",
    help="The Owner whose key it is, by id or address. [default: whose admin key asks; on the server's machine the"
    " oldest Owner]",
)
@click.option("--organization", help="On the server's machine: its name. [default: the first one]")
@expires_option
@json_option
@data_option
@refusing
def admin_keys_create(
    name: str,
    user: str | None,
    organization: str | None,
    expires: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Create an admin key and print it; it cannot be shown again.

    It is valid while its user is an Owner. On the server's machine it needs no other key: make the first one there,
    and another if none is left.
    """
    if not client.administers_over_http(data):
        from tunewarden.cli import local_admin_keys  # noqa: PLC0415  half a second, not for who asks over HTTP

        made = local_admin_keys.create(
            config.load(data=data),
            organization=organization,
            user=user,
            name=name,
            expires=expires,
        )
    elif organization is not None:
        raise click.UsageError("--organization is for the server's machine: give --data too.")
    else:
        with client.administering(data) as server:
            fields: Object = {"name": name, "expires_in_seconds": expires}
            if user is not None:
                fields["user_id"] = people.id_of(server, user)
            made = server.post(*KEYS, fields=fields)
    show_key(made, made["value"], made["owner"]["name"], as_json=as_json)


@admin_keys.command("list")
@limit_option
@json_option
@administering_option
@refusing
def admin_keys_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List admin keys, newest first: id, name, whose, until when, last use."""
    with client.administering(data) as server:
        found = server.pages(*KEYS, limit=limit, page_size=ADMINISTRATION_PAGE_SIZE, order="desc")
    if as_json:
        show_json(found)
        return
    show_table(FIELDS, map(_row, found["data"]))
    say_if_more(found)


@admin_keys.command("revoke", epilog="\b\nExample:\n  tunewarden admin-keys revoke adminkey_…")
@click.argument("key_id")
@dry_run_option
@json_option
@administering_option
@refusing
def admin_keys_revoke(key_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Revoke an admin key at once and for good."""
    with client.administering(data) as server:
        if dry_run:
            found = server.get(*KEYS, key_id)
            if as_json:
                show_json(found)
            else:
                show_table(FIELDS, [_row(found)])
            was_dry_run("revoked")
            return
        revoked = server.delete(*KEYS, key_id)
    if as_json:
        show_json(revoked)
    else:
        click.echo(revoked["id"])


def _row(key: Object) -> tuple[str, ...]:
    times = (key["expires_at"], key["last_used_at"])
    shown = ("-" if one is None else shown_time(one) for one in times)
    return key["id"], key["name"], key["owner"]["name"], *shown
