"""`migrate openai switch` and `rollback`: the source's ids of models are aliases here, or no longer."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tunewarden import config
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.migrate_options import inventory_of, resumed, state_option, target_of
from tunewarden.cli.migration_aliases import HttpAliases
from tunewarden.cli.options import data_option, dry_run_option, json_option, refusing
from tunewarden.cli.output import show_json, show_table
from tunewarden.cli.server_address import shown_url
from tunewarden.errors import Error, Kind
from tunewarden.migration import switching
from tunewarden.migration.switching import REFUSED, Switched, Switching

UNKNOWN = "-"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of both."""
    options = (
        click.option(
            "--model",
            "models",
            multiple=True,
            help="Only this model of the source; may be repeated.",
        ),
        state_option,
        dry_run_option,
        json_option,
        data_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("switch", epilog="\b\nExample:\n  tunewarden migrate openai switch --dry-run")
@_options
@refusing
def switch_command(
    *,
    models: Sequence[str],
    directory: Path,
    data: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make each old id an alias of the model that was made again, and print the environment that applications need.

    Applications keep the model's name that they send. An alias that is there already is switched. `rollback` restores
    what was before. The exit status is 1 if an alias could not be made.
    """
    with resumed(directory) as (noted, shown), target_of(noted, data, is_dry_run=dry_run) as server:
        wanted = switching.made_again(inventory_of(noted), noted, models)
        if not wanted:
            raise Error(
                Kind.CONFLICT, "No model was made again yet: run `migrate openai retrain` first."
            )
        switcher = Switching(HttpAliases(server), noted, dry_run)
        done = [_switched(switcher, name, model) for name, model in wanted.items()]
        environment = {"OPENAI_BASE_URL": shown_url(data), "OPENAI_API_KEY": "…"}
        _show(done, {"environment": environment} if as_json else None)
        _say_reasons(done, shown.say)
        if dry_run:
            was_dry_run("switched")
            return
        if any(one.status != REFUSED for one in done):
            _say_environment(environment["OPENAI_BASE_URL"], data, shown.say)
        _end(done)


@click.command("rollback")
@_options
@refusing
def rollback_command(
    *,
    models: Sequence[str],
    directory: Path,
    data: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Undo `switch`: an alias that it made is deleted, one that it switched points again to what it did before.

    Models stay. An alias that somebody else has changed since stays too, and the exit status is 1.
    """
    with resumed(directory) as (noted, shown), target_of(noted, data, is_dry_run=dry_run) as server:
        switcher = Switching(HttpAliases(server), noted, dry_run)
        done = [switcher.roll_back(name) for name in models or switcher.noted]
        _show(done, {} if as_json else None)
        _say_reasons(done, shown.say)
        if dry_run:
            was_dry_run("rolled back")
            return
        _end(done)


def _say_environment(url: str, data: Path | None, say: Callable[[str], None]) -> None:
    say("Applications that send the old ids need these two lines instead of OpenAI's:")
    say(f"  OPENAI_BASE_URL={url}")
    if data is None and config.client_settings() is not None:
        where = "DATA`, on the server's machine, with its data directory"
    else:
        where = f"{shlex.quote(str(config.load(data=data).data))}`"
    say(
        f"  OPENAI_API_KEY=…   a key of this server: `tunewarden keys create --role reader --name app --data {where}"
    )


def _switched(switcher: Switching, name: str, model: str | None) -> Switched:
    if model is None:
        reason = "no model was made again for it: run `migrate openai retrain`"
        return Switched(name, None, REFUSED, reason=reason)
    return switcher.switch(name, model)


def _show(done: Sequence[Switched], more: dict[str, Any] | None) -> None:
    """Print a table, or JSON with `more` in it."""
    if more is not None:
        show_json({"aliases": [asdict(one) for one in done], **more})
        return
    rows = [(one.name, one.model or UNKNOWN, one.version or UNKNOWN, one.status) for one in done]
    show_table(("name", "model here", "version", "status"), rows)


def _say_reasons(done: Sequence[Switched], say: Callable[[str], None]) -> None:
    for one in done:
        if one.reason:
            say(f"{one.name}: {one.reason}.")


def _end(done: Sequence[Switched]) -> None:
    """Raise Error if anything was refused."""
    refused = sum(one.status == REFUSED for one in done)
    if refused:
        raise Error(Kind.INVALID, f"{refused} of {len(done)} aliases stay as they are.")
