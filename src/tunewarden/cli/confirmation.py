"""Questions before a command changes what cannot be brought back."""

import click

from tunewarden.cli.output import plain


def confirm(what: str, wanted: str, kind: str = "id") -> None:
    """Say what will happen and ask for an id, or what `kind` names. Raises click.ClickException if the typed one does not match."""
    click.echo(f"{what} It cannot be undone.", err=True)
    if click.prompt(f"Type {plain(wanted)} to go on", err=True) != wanted:
        raise click.ClickException(f"The {kind} does not match. Nothing was changed.")


def was_dry_run(done: str) -> None:
    """Say that nothing was done; `done` is the participle of what would have been."""
    click.echo(f"This was a dry run. Nothing was {done}.", err=True)
