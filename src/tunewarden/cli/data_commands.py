"""Commands about a data directory: backup, restored keyrings, and paused expiry."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import local_operations
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import show_json


@click.group()
def backup() -> None:
    """Back up the database. See docs/how-to/backup-and-restore.md for the rest."""


@backup.command("database")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@data_option
@refusing
def backup_database(file: Path, data: Path | None, *, as_json: bool) -> None:
    """Write a consistent copy of the database to FILE, outside the data directory; a server may be running."""
    local_operations.copy_database(config.of_this_machine(data), file)
    if as_json:
        show_json({"object": "backup", "file": str(file), "bytes": file.stat().st_size})


@click.group()
def keyring() -> None:
    """The models' keys."""


@keyring.command("adopt")
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def keyring_adopt(data: Path | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Accept an older copy of the keyring: keys that were erased since are erased again.

    For when no newer mirror exists. Other copies of that old keyring still hold those keys: erase them.
    """
    settings = config.of_this_machine(data)
    if not (yes or dry_run):
        click.confirm(
            "Are you sure that there is no newer copy of the keyring?", abort=True, err=True
        )
    count = local_operations.adopt_keyring(settings, is_dry_run=dry_run)
    if as_json:
        show_json({"object": "keyring.adoption", "erased_again": count, "dry_run": dry_run})
    elif dry_run:
        click.echo(f"{count} keys would be erased again. Nothing was changed.", err=True)
    else:
        click.echo(f"{count} keys were erased again.", err=True)


@click.group()
def expiry() -> None:
    """Expiry of files and uploads."""


@expiry.command("resume")
@json_option
@data_option
@refusing
def expiry_resume(data: Path | None, *, as_json: bool) -> None:
    """Resume expiry after the clock jumped. Check the machine's clock first."""
    was_paused = local_operations.let_expire(config.of_this_machine(data))
    if as_json:
        show_json({"object": "expiry", "was_paused": was_paused})
    else:
        said = "Files and uploads expire again." if was_paused else "Nothing was paused."
        click.echo(said, err=True)
