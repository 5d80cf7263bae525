"""Commands about the engines of remote bases. They use addresses of the server's machine, so they only work there."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.app import open_app
from tunewarden.cli import replica_operations
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import listing, show_json


@click.group()
def replicas() -> None:
    """Engines of remote bases."""


@replicas.command(
    "add",
    epilog="\b\nExample:\n  tunewarden replicas add llama --engine-url http://127.0.0.1:8001/v1",
)
@click.argument("base")
@click.option("--engine-url", required=True, help="Where it answers: it must serve the same model.")
@click.option(
    "--engine-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file with the API key that this server requires; it is copied, mode 0600.",
)
@click.option("--name", help="Its name; else the lowest free number.")
@json_option
@data_option
@refusing
def replicas_add(
    base: str,
    engine_url: str,
    engine_key_file: Path | None,
    name: str | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Add an engine to BASE; a running server uses it at once."""
    settings = config.of_this_machine(data)
    app = open_app(settings)
    added = replica_operations.add_replica(settings, app, base, (engine_url, engine_key_file), name)
    if as_json:
        show_json(replica_operations.shown(settings, app, added))
        return
    click.echo(f"{added.base}/{added.name}")


@replicas.command("list")
@click.argument("base", required=False)
@json_option
@data_option
@refusing
def replicas_list(base: str | None, data: Path | None, *, as_json: bool) -> None:
    """List engines of BASE, or of all: name, URL, its lease, `leaving` while it is being removed."""
    settings = config.of_this_machine(data)
    found = replica_operations.listed(settings, open_app(settings), base)
    if as_json:
        show_json(listing(found))
        return
    for one in found:
        leaving = "\tleaving" if one["is_leaving"] else ""
        lease = f"\t{one['lease']['state']}" if one["lease"] else ""
        click.echo(f"{one['id']}\t{one['url']}{lease}{leaving}")


@replicas.command("remove")
@click.argument("base")
@click.argument("name")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long what runs on it may go on; then it is aborted.",
)
@json_option
@data_option
@refusing
def replicas_remove(
    base: str, name: str, drain_seconds: float, data: Path | None, *, as_json: bool
) -> None:
    """Remove the engine NAME of BASE once it has evicted every fine-tuned model."""
    settings = config.of_this_machine(data)
    evicted = replica_operations.remove_replica(
        settings, open_app(settings), base, name, drain_seconds=drain_seconds
    )
    if as_json:
        show_json(
            {"id": f"{base}/{name}", "object": "replica", "deleted": True, "evicted": evicted}
        )
        return
    click.echo(f"{base}/{name}")
