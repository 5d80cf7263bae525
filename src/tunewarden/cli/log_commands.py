"""Commands about the deletion log."""

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

BEFORE = (
    "The log's signing key will be replaced, and the old one erased: nothing brings it back. Mirror log/ and log.key"
    " again afterwards, and give auditors the new key with /log/hand-overs. Go on?"
)


@click.group()
def log() -> None:
    """The deletion log."""


@log.command("rotate-key")
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def log_rotate_key(data: Path | None, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Replace the log's signing key: the old key names the new one in the log. Stop the server first.

    Receipts of the old key stay valid. If a rotation was interrupted, this completes it.
    """
    settings = config.of_this_machine(data)
    if not (yes or dry_run):
        click.confirm(BEFORE, abort=True, err=True)
    to = local_operations.log_key_to_rotate if dry_run else local_operations.rotate_log_key
    found = to(settings)
    if as_json:
        show_json(
            {
                "object": "log.key_rotation",
                "previous_key": found.key,
                "new_key": found.new_key,
                "entry": found.entry,
                "interrupted": found.entry is None,
                "dry_run": dry_run,
            }
        )
    elif found.entry is None:
        click.echo(
            f"A rotation of the key sha256:{found.key} was interrupted. Without --dry-run it would be completed, or undone"
            " and begun anew if the log does not name the new key. Nothing was changed.",
            err=True,
        )
    elif dry_run:
        click.echo(
            f"The key sha256:{found.key} would be replaced, by entry {found.entry} of the log. Nothing was changed.",
            err=True,
        )
    else:
        click.echo(f"old key: sha256:{found.key}", err=True)
        click.echo(f"new key: sha256:{found.new_key}", err=True)
        click.echo(
            f"Entry {found.entry} of the log hands over. Start the server, and mirror log/ and log.key again.",
            err=True,
        )
