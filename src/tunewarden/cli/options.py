"""What commands have in common: the data option, how errors and times are shown."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from tunewarden import config
from tunewarden.errors import Error

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Data directory. [default: TUNEWARDEN_DATA or {config.DEFAULT_DATA}]",
)


def refusing(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Show an expected error as one line, with exit status 1."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return command(*arguments, **options)
        except Error as error:
            raise click.ClickException(error.message) from error

    return run


def shown_time(seconds: float) -> str:
    """Return a time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def plain(text: object) -> str:
    """Return text for a terminal or a line: what would control either is shown as a question mark."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(text))


def show_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: in columns below their names on a terminal, else tab-separated, for scripts."""
    shown = ([plain(value) for value in row] for row in rows)
    if not sys.stdout.isatty():
        for row in shown:
            click.echo("\t".join(row))
        return
    table = [[name.upper() for name in names], *shown]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        padded = [value.ljust(width) for value, width in zip(row, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())
