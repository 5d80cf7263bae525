"""What commands have in common: the data option, how errors and times are shown."""

import functools
from collections.abc import Callable
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
