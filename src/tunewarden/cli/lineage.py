"""Shows the lineage of a model or a file, for the commands of both."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.output import show_json, show_table


def show(kind: str, artifact_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show what one of `kind` (`models`, `files`) learned from, and what learned from it."""
    with client.opened(data) as server:
        found = server.get(kind, artifact_id, "lineage")
    if as_json:
        show_json(found)
        return
    rows = []
    for side in ("up", "down"):
        for one in found[side]["data"]:
            mark = "declared" if one.get("declared") else ""
            rows.append((side, one.get("object", "-"), one["id"], one["state"], mark))
        if found[side]["hidden"]:
            hidden = found[side]["hidden"]
            click.echo(f"{side}: {hidden} of other projects are not shown.", err=True)
        if not found[side]["whole"]:
            click.echo(f"{side}: there are more.", err=True)
    show_table(("direction", "kind", "id", "state", ""), rows)
