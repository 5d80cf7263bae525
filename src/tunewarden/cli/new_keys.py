"""Prints a key that was just made: its text alone on a line of standard output, which is shown this once."""

import click

from tunewarden.cli.client import Object
from tunewarden.cli.output import plain, show_json, shown_time


def show_key(made: Object, value: str, whose: str, *, as_json: bool) -> None:
    """Print a key's text, and on standard error what it is; as JSON all of `made`."""
    if as_json:
        show_json(made)
        return
    end = made.get("expires_at")
    until = "" if end is None else f" until {shown_time(end)}"
    click.echo(f"{plain(made['id'])} for {plain(whose)}{until}; it is shown only once:", err=True)
    click.echo(value)
