"""Commands about API keys of all organizations, for the operator, on the server's machine only."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import local_operations
from tunewarden.cli.client import Object
from tunewarden.cli.options import data_option, dry_run_option, json_option, refusing
from tunewarden.cli.output import listing, show_json


@click.group()
def keys() -> None:
    """API keys."""


@keys.command("create", epilog="\b\nExample:\n  tunewarden keys create --role reader --name ci")
@click.option(
    "--role",
    type=click.Choice(["owner", "member", "reader"]),
    required=True,
    help="The role of its user: an Owner of the organization, or a member or reader of the project.",
)
@click.option("--name", default="key", help="For people.")
@click.option("--organization", help="Created if it is new. [default: the first one]")
@click.option("--scope", "scopes", multiple=True, help="Restrict the key; repeatable.")
@json_option
@data_option
@refusing
def keys_create(
    role: str,
    name: str,
    organization: str | None,
    scopes: tuple[str, ...],
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Create a key and print it; it cannot be shown again."""
    settings = config.of_this_machine(data)
    key = local_operations.create_key(
        settings, organization=organization, role=role, name=name, scopes=scopes
    )
    try:
        if as_json:
            show_json(key)
            return
        said = f"{key['id']} for {role} in {key['organization']}; it is shown only once:"
        click.echo(said, err=True)
        click.echo(key["value"])
    except OSError:
        local_operations.revoke_key(settings, key["id"])  # nobody has seen it
        raise


@keys.command("list")
@json_option
@data_option
@refusing
def keys_list(data: Path | None, *, as_json: bool) -> None:
    """List keys: id, name, role, organization, scopes, state."""
    found = local_operations.keys(config.of_this_machine(data))
    if as_json:
        show_json(listing(found))
        return
    for key in found:
        click.echo(_line(key))


@keys.command("revoke", epilog="\b\nExample:\n  tunewarden keys revoke key_…")
@click.argument("key_id")
@dry_run_option
@json_option
@data_option
@refusing
def keys_revoke(key_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Revoke a key immediately and permanently."""
    settings = config.of_this_machine(data)
    if not dry_run:
        local_operations.revoke_key(settings, key_id)
    if dry_run or as_json:
        key = local_operations.key(settings, key_id)
        if as_json:
            show_json(key)
        else:
            click.echo(_line(key))
    else:
        click.echo(key_id)
    if dry_run:
        click.echo("This was a dry run. Nothing was revoked.", err=True)


def _line(key: Object) -> str:
    scopes = " ".join(key["scopes"]) or "unrestricted"
    state = "active" if key["revoked_at"] is None else "revoked"
    return "\t".join((key["id"], key["name"], key["role"], key["organization"], scopes, state))
