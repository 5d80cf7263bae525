"""Commands about files of training data."""

from pathlib import Path

import click

from tunewarden.cli.options import data_option, refusing, show_table, shown_time


@click.group()
def files() -> None:
    """Files of training data. Uses OPENAI_BASE_URL and OPENAI_API_KEY, or --data."""


@files.command("upload", epilog="\b\nExample:\n  tunewarden files upload chats.jsonl")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--purpose", default="fine-tune", show_default=True, help="What it is for, by OpenAI's names."
)
@data_option
@refusing
def files_upload(path: Path, purpose: str, data: Path | None) -> None:
    """Upload the file at PATH and print its id.

    It is sealed as it comes: its text is never on the server's disk. `finetune create` takes a path
    too, and checks each of its lines before it uploads anything.
    """
    from tunewarden.cli import job_doors, local_files  # noqa: PLC0415

    with (
        job_doors.opened(data) as door,
        local_files.opened(path) as file,
        file.shown("Uploading"),
    ):
        made = door.upload(file, purpose)
    click.echo(made["id"])


@files.command("list", epilog="\b\nExample:\n  tunewarden files list --purpose fine-tune")
@click.option("--purpose", help="Only files for this purpose.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="How many to show, newest first.",
)
@data_option
@refusing
def files_list(purpose: str | None, limit: int, data: Path | None) -> None:
    """List files, newest first: id, purpose, bytes, creation time, name."""
    from tunewarden.cli import job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
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
                for file in door.files(purpose, limit)
            ],
        )


@files.command("delete", epilog="\b\nExample:\n  tunewarden files delete file-…")
@click.argument("file_id")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@data_option
@refusing
def files_delete(file_id: str, data: Path | None, *, yes: bool) -> None:
    """Delete a file, for good, and print the deletion's id. It is gone when this returns.

    A file that a job still needs cannot be deleted: cancel the job, or wait for it.
    """
    from tunewarden.cli import job_doors  # noqa: PLC0415

    with job_doors.opened(data) as door:
        door.file(file_id)
        if not yes:
            click.echo(f"This deletes {file_id} for good. It cannot be undone.", err=True)
            if click.prompt("Type the file's id to delete it", err=True) != file_id:
                raise click.ClickException("The id does not match. Nothing was deleted.")
        deletion = door.delete_file(file_id)
    click.echo(deletion)
