"""Commands about holds: what must not be deleted, and why."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Object
from tunewarden.cli.options import data_option, json_option, limit_option, refusing
from tunewarden.cli.output import say_if_more, show_json, show_table, shown_time


@click.group()
def holds() -> None:
    """What must not be deleted.

    While a hold is in force, nothing deletes its model or file, not even --force.
    """


@holds.command("place", epilog="\b\nExample:\n  tunewarden holds place ft:… --reason 'case 17'")
@click.argument("artifact_id")
@click.option("--reason", required=True, help="Why; it is deleted with the model or file.")
@json_option
@data_option
@refusing
def holds_place(artifact_id: str, reason: str, data: Path | None, *, as_json: bool) -> None:
    """Place a hold on a model (ft:…) or a file (file-…); print its id."""
    kind = "file" if artifact_id.startswith("file-") else "model"
    with client.opened(data) as server:
        hold = server.post("holds", fields={kind: artifact_id, "reason": reason})
    _show(hold, as_json=as_json)


@holds.command("lift", epilog="\b\nExample:\n  tunewarden holds lift hold_…")
@click.argument("hold_id")
@json_option
@data_option
@refusing
def holds_lift(hold_id: str, data: Path | None, *, as_json: bool) -> None:
    """Lift a hold; its model or file can be deleted again."""
    with client.opened(data) as server:
        hold = server.post("holds", hold_id, "lift")
    _show(hold, as_json=as_json)


@holds.command("list")
@click.option("--artifact", help="Only those of this model or file.")
@click.option("--all", "with_lifted", is_flag=True, help="Lifted ones too.")
@limit_option
@json_option
@data_option
@refusing
def holds_list(
    artifact: str | None,
    limit: int | None,
    data: Path | None,
    *,
    with_lifted: bool,
    as_json: bool,
) -> None:
    """List holds in force, newest first: id, model or file, when placed, reason."""
    in_force = None if with_lifted else "true"
    with client.opened(data) as server:
        found = server.pages("holds", limit=limit, artifact=artifact, in_force=in_force)
    if as_json:
        show_json(found)
        return
    names = ("id", "held", "placed", "lifted", "reason")
    show_table(names, map(_row, found["data"]))
    if limit is not None:
        say_if_more(found)


def _row(hold: Object) -> tuple[object, ...]:
    lifted = "" if hold["lifted_at"] is None else shown_time(hold["lifted_at"])
    held = hold.get("model") or hold.get("file")
    return hold["id"], held, shown_time(hold["placed_at"]), lifted, hold["reason"] or ""


def _show(hold: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(hold)
    else:
        click.echo(hold["id"])
