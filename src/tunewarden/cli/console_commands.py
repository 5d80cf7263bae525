"""Commands about the console."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import show_json


@click.group()
def console() -> None:
    """The pages for people, at /console of the server."""


@console.command("link", epilog="\b\nExample:\n  tunewarden console link --data data")
@json_option
@data_option
@refusing
def console_link(data: Path | None, *, as_json: bool) -> None:
    """Print a link that signs in to the console once, within ten minutes, as the key of this command."""
    with client.opened(data) as server:
        made = server.post("console", "links")
    if as_json:
        show_json(made)
    else:
        click.echo(made["url"])
