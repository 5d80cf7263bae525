"""Commands about organizations: the operator's, on the server's machine only."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import organization_operations
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import listing, show_json, show_table, shown_time


@click.group()
def organizations() -> None:
    """Organizations of this server."""


@organizations.command("list")
@json_option
@data_option
@refusing
def organizations_list(data: Path | None, *, as_json: bool) -> None:
    """List organizations, oldest first: id, name, creation time."""
    found = organization_operations.list_all(config.of_this_machine(data))
    if as_json:
        show_json(listing(found))
        return
    rows = ((one["id"], one["name"], shown_time(one["created_at"])) for one in found)
    show_table(("id", "name", "created"), rows)


@organizations.command("create", epilog="\b\nExample:\n  tunewarden organizations create acme")
@click.argument("name")
@json_option
@data_option
@refusing
def organizations_create(name: str, data: Path | None, *, as_json: bool) -> None:
    """Create an organization with its default project and print its id; it has no Owner yet.

    Make its first one with `tunewarden keys create --role owner --organization NAME`.
    """
    made = organization_operations.create(config.of_this_machine(data), name)
    if as_json:
        show_json(made)
    else:
        click.echo(made["id"])
