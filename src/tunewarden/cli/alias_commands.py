"""Commands about aliases: stable names of models."""

from collections.abc import Sequence
from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Object
from tunewarden.cli.options import data_option, dry_run_option, json_option, refusing
from tunewarden.cli.output import show_json, show_table, shown_time

TARGETS = "MODEL, or MODEL=WEIGHT for a share of the requests."


@click.group()
def aliases() -> None:
    """Stable names of models.

    Applications send them as `model`. Deleting a model never follows one.
    """


@aliases.command("create", epilog="\b\nExample:\n  tunewarden aliases create support ft:…")
@click.argument("name")
@click.argument("targets", nargs=-1, required=True, metavar="MODEL[=WEIGHT]...")
@json_option
@data_option
@refusing
def aliases_create(
    name: str, targets: tuple[str, ...], data: Path | None, *, as_json: bool
) -> None:
    """Create an alias of one model, or of several with weights."""
    with client.opened(data) as server:
        made = server.post("aliases", fields={"name": name, "targets": _targets(targets)})
    _show(made, as_json=as_json)


@aliases.command("switch", epilog="\b\nExample:\n  tunewarden aliases switch support ft:…")
@click.argument("name")
@click.argument("targets", nargs=-1, required=True, metavar="MODEL[=WEIGHT]...")
@json_option
@data_option
@refusing
def aliases_switch(
    name: str, targets: tuple[str, ...], data: Path | None, *, as_json: bool
) -> None:
    """Point an alias to other models; the next request is served by them."""
    with client.opened(data) as server:
        made = server.post("aliases", name, fields={"targets": _targets(targets)})
    _show(made, as_json=as_json)


@aliases.command("rollback")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="[default: the one before]")
@json_option
@data_option
@refusing
def aliases_rollback(name: str, version: int | None, data: Path | None, *, as_json: bool) -> None:
    """Point an alias back to what an earlier version of it pointed to."""
    with client.opened(data) as server:
        made = server.post("aliases", name, fields={"rollback": True, "version": version})
    _show(made, as_json=as_json)


@aliases.command("list")
@json_option
@data_option
@refusing
def aliases_list(data: Path | None, *, as_json: bool) -> None:
    """List aliases: name, version, models with their weights."""
    with client.opened(data) as server:
        found = server.pages("aliases", limit=None)
    if as_json:
        show_json(found)
        return
    rows = [(one["name"], one["version"], _weighted(one["targets"])) for one in found["data"]]
    show_table(("name", "version", "models"), rows)


@aliases.command("show")
@click.argument("name")
@json_option
@data_option
@refusing
def aliases_show(name: str, data: Path | None, *, as_json: bool) -> None:
    """Show an alias's history: version, time, the key that changed it, models with their weights."""
    with client.opened(data) as server:
        found = server.get("aliases", name)
    if as_json:
        show_json(found)
        return
    rows = [
        (
            one["version"],
            shown_time(one["changed_at"]),
            one["changed_by"],
            _weighted(one["targets"]),
        )
        for one in found["history"]
    ]
    show_table(("version", "changed", "by", "models"), rows)


@aliases.command("delete")
@click.argument("name")
@dry_run_option
@json_option
@data_option
@refusing
def aliases_delete(name: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Delete an alias; the models that it points to stay."""
    with client.opened(data) as server:
        found = server.get("aliases", name)
        if not dry_run:
            server.delete("aliases", name)
    if as_json:
        show_json(found)
    else:
        click.echo(found["name"])
    if dry_run:
        click.echo("This was a dry run. Nothing was deleted.", err=True)


def _targets(given: Sequence[str]) -> list[Object]:
    found = []
    for one in given:
        model, has_weight, weight = one.partition("=")
        if has_weight and not (weight.isascii() and weight.isdigit()):
            raise click.BadParameter(f"'{weight}' is no whole number: {TARGETS}")
        found.append({"model": model, "weight": int(weight) if has_weight else 1})
    return found


def _weighted(targets: Sequence[Object]) -> str:
    return ", ".join(f"{one['model']}={one['weight']}" for one in targets)


def _show(alias: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(alias)
    else:
        click.echo(f"{alias['name']}\t{alias['version']}\t{_weighted(alias['targets'])}")
