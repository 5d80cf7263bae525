"""Options shared by commands, and their error output."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from tunewarden import config
from tunewarden.cli import exit_codes
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.output import plain
from tunewarden.errors import Error
from tunewarden.settings import Setting

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


def _option(setting: Setting) -> Callable[[Command], Command]:
    kind: click.ParamType[Any] | None = None
    if isinstance(setting.default, Path):
        kind = click.Path(path_type=Path, file_okay=False)
    elif isinstance(setting.default, int) and setting.limits is not None:
        least, most = map(int, setting.limits)
        kind = click.IntRange(least, most)
    meaning = f"{setting.meaning[0].upper()}{setting.meaning[1:]}."
    known = f"[{setting.variable}; default: {setting.default}]"
    return click.option(setting.flag, type=kind, help=f"{meaning} {known}")


data_option = _option(config.SETTINGS["data"])
_ORGANIZATION = "tunewarden.organization"


def choose_organization(
    context: click.Context, _parameter: click.Parameter, name: str | None
) -> str | None:
    """Keep the value of --organization for `client.administering`: a callback."""
    context.meta[_ORGANIZATION] = name
    return name


def chosen_organization() -> str | None:
    """Return the value of the running command's --organization."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_ORGANIZATION)


def administering_option(command: Command) -> Command:
    """Add --data, and --organization, which `client.administering` looks at."""
    chosen = click.option(
        "--organization",
        callback=choose_organization,
        expose_value=False,
        help="On the server's machine: the organization to administer. [default: the first one]",
    )
    return data_option(chosen(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done, without doing it."
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), help="Show only so many, the newest. [default: all]"
)
force_option = click.option(
    "--force",
    is_flag=True,
    help="Delete even what is protected or needed by a job, which is cancelled; not what is on hold.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation; for scripts.")


def setting_options(command: Command) -> Command:
    """Add the flags of all settings to a command; each is None if not given."""
    for setting in reversed(config.SETTINGS.values()):
        if setting.has_flag:
            command = _option(setting)(command)
    return command


def refusing(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Print an Error as one line, and exit with its status."""

    @functools.wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        try:
            return command(*arguments, **options)
        except Error as error:
            # What overrides a blocker is a parameter of the API there, and an option here.
            said = error.message.replace("`force=true`", "`--force`")
            click.echo(f"Error: {plain(said)}", err=True)
            raise click.exceptions.Exit(exit_codes.of(error.kind)) from error
        except BrokenPipeError:
            raise  # click ends such a command without a word
        except OSError as error:
            where = "the output" if error.filename is None else f"{error.filename}"
            click.echo(f"Error: {where}: {error.strerror}.", err=True)
            raise click.exceptions.Exit(ExitCode.FAILED) from error

    return run
