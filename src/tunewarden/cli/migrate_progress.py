"""Progress of a migration's command, on one line of a terminal."""

import sys

import click

from tunewarden.cli.output import plain


class Shown:
    """Messages on standard error. Counts are shown on a terminal only."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._width = 0

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._clear()
        click.echo(plain(text), err=True)

    def count(self, what: str, done: int, total: int) -> None:
        """Show how much of `total` is done; a total of 0 is not known."""
        if not self._is_terminal:
            return
        self._clear()
        text = plain(f"{what}: {done} of {total}" if total else f"{what} …")
        click.echo(text, err=True, nl=False)
        self._width = len(text)

    def end(self) -> None:
        """Remove the counts."""
        self._clear()

    def _clear(self) -> None:
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", err=True, nl=False)
            self._width = 0
