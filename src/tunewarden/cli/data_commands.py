"""Commands about a data directory: copies of it, and copies that came back."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli.options import data_option, refusing


@click.group()
def backup() -> None:
    """Copies of what may be copied. See docs/how-to/backup-and-restore.md for the rest."""


@backup.command("database")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@data_option
@refusing
def backup_database(file: Path, data: Path | None) -> None:
    """Write a consistent copy of the database to FILE, beside a running server."""
    from tunewarden.app import open_app  # noqa: PLC0415

    open_app(config.load(data=data)).database.copy_to(file)


@click.group()
def keyring() -> None:
    """The models' keys."""


@keyring.command("adopt")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts.")
@data_option
@refusing
def keyring_adopt(data: Path | None, *, yes: bool) -> None:
    """Accept an older copy of the keyring: keys that were erased since are erased again.

    For when no newer mirror exists. Other copies of that old keyring still hold those keys: erase them.
    """
    from tunewarden.app import open_app, recovery, with_no_server  # noqa: PLC0415

    settings = config.load(data=data)
    if not yes:
        click.confirm("Is there really no newer copy of the keyring?", abort=True, err=True)
    with with_no_server(settings):
        erased = recovery(open_app(settings, migrate=True)).adopt_keyring()
    click.echo(f"{erased} keys were erased again.", err=True)
