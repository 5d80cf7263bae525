"""Commands about files of training data."""

from pathlib import Path

import click

from tunewarden.cli import client, deleting, erasing, forms, lineage, local_files
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    force_option,
    json_option,
    limit_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import line, say_if_more, show_json, show_table, shown_time
from tunewarden.cli.search_command import files_search


@click.group()
def files() -> None:
    """Files of training data."""


files.add_command(files_search)


@files.command("upload", epilog="\b\nExample:\n  tunewarden files upload chats.jsonl")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--purpose", default="fine-tune", show_default=True, help="What it is for, by OpenAI's names."
)
@json_option
@data_option
@refusing
def files_upload(path: Path, purpose: str, data: Path | None, *, as_json: bool) -> None:
    """Upload the file at PATH and print its id.

    It is encrypted as it arrives: its plaintext is never on the server's disk. `fine-tunes create` takes a path
    too, and validates each line before it uploads anything.
    """
    with client.opened(data) as server, local_files.opened(path) as file, file.shown("Uploading"):
        made = forms.upload(server, file, purpose)
    if as_json:
        show_json(made)
    else:
        click.echo(made["id"])


@files.command("list", epilog="\b\nExample:\n  tunewarden files list --purpose fine-tune")
@click.option("--purpose", help="Only files for this purpose.")
@limit_option
@json_option
@data_option
@refusing
def files_list(purpose: str | None, limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List files, newest first: id, purpose, bytes, creation time, name."""
    with client.opened(data) as server:
        found = server.pages("files", purpose=purpose, limit=limit)
    say_if_more(found)
    if as_json:
        show_json(found)
        return
    show_table(
        ("id", "purpose", "bytes", "created", "name"),
        [
            (
                file["id"],
                file["purpose"],
                file["bytes"],
                shown_time(file["created_at"]),
                file["filename"],
            )
            for file in found["data"]
        ],
    )


@files.command("show", epilog="\b\nExample:\n  tunewarden files show file-…")
@click.argument("file_id")
@json_option
@data_option
@refusing
def files_show(file_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show one file: its name, its purpose, its size and its times."""
    with client.opened(data) as server:
        file = server.get("files", file_id)
    if as_json:
        show_json(file)
        return
    for name, value in file.items():
        line(name, shown_time(value) if name.endswith("_at") and value else value)


@files.command("lineage", epilog="\b\nExample:\n  tunewarden files lineage file-…")
@click.argument("file_id")
@json_option
@data_option
@refusing
def files_lineage(file_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show what a file was made from, and what learned from it or was made from it: direction, kind, id, state.

    What an Owner declared in `trained_on` is marked: it was not seen here.
    """
    lineage.show("files", file_id, data, as_json=as_json)


@files.command("delete", epilog="\b\nExample:\n  tunewarden files delete file-…")
@click.argument("file_id")
@click.option(
    "--with-models",
    is_flag=True,
    help="Delete everything that learned from it too, as one case: all of it or nothing.",
)
@force_option
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def files_delete(
    file_id: str,
    data: Path | None,
    *,
    with_models: bool,
    force: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete a file, for good, and print the deletion's id. It is gone when this returns.

    A file that an unfinished job needs is deleted with --force only, which cancels the job.

    With --with-models the models, checkpoints and files that learned from it, or from those, go with it, and jobs that
    have not ended are cancelled. It prints the case's id.
    """
    if with_models:
        erasing.delete(file_id, data, force=force, yes=yes, dry_run=dry_run, as_json=as_json)
        return
    deleting.delete("files", file_id, data, force=force, yes=yes, dry_run=dry_run, as_json=as_json)
