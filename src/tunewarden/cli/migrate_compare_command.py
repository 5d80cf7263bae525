"""`migrate openai compare`: what the new models answer beside what the old ones did."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tunewarden.cli.client import Client
from tunewarden.cli.migrate_options import inventory_of, resumed, state_option, target_of
from tunewarden.cli.migration_target import HttpTarget
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import plain, show_json, show_table
from tunewarden.cli.server_address import shown_url
from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.migration import compare, figures, promptfoo, switching
from tunewarden.migration.compare import Comparing, Pair

Object = dict[str, Any]
UNKNOWN = "-"


class HttpChats:
    """A `migration.compare.Chats`."""

    def __init__(self, server: Client) -> None:
        self._server = server

    def ask(self, request: Object) -> Object:
        """Return a chat completion."""
        return self._server.post("chat", "completions", fields=request)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option(
            "--model",
            "models",
            multiple=True,
            help="Only this model of the source; may be repeated.",
        ),
        click.option(
            "--at-least",
            "least",
            multiple=True,
            metavar="MEASURE=SHARE",
            help=f"Exit with 1 below it, as exact=0.9; measures are {', '.join(figures.MEASURES)}. May be repeated.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(1, 64),
            default=4,
            show_default=True,
            help="How many questions at once.",
        ),
        click.option(
            "--show", is_flag=True, help="Print the questions and answers that differ, as text."
        ),
        click.option(
            "--promptfoo",
            "directory_of_configurations",
            type=click.Path(path_type=Path, file_okay=False),
            help="Write a promptfoo configuration for each new model there, with questions and answers unencrypted.",
        ),
        state_option,
        json_option,
        data_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    "compare",
    epilog="\b\nExample:\n  tunewarden migrate openai compare --at-least exact=0.9 --at-least json=1",
)
@_options
@refusing
def compare_command(
    *,
    models: Sequence[str],
    least: Sequence[str],
    concurrency: int,
    show: bool,
    directory_of_configurations: Path | None,
    directory: Path,
    data: Path | None,
    as_json: bool,
) -> None:
    """Ask the new models what the old ones were asked by `record`, and print how alike the answers are.

    Answers of both sides become sealed files here, derived from the recorded ones. What was compared before is not
    asked again. Text is shown by --show only.
    """
    thresholds = _thresholds(least)
    with resumed(directory) as (noted, shown), target_of(noted, data) as server:
        found = inventory_of(noted)
        made = switching.made_again(found, noted, models)
        comparing = Comparing(
            HttpTarget(server),
            HttpChats(server),
            noted,
            SystemClock(),
            found["source"],
            concurrency,
            shown.say,
        )
        pairs = compare.pairs(noted, {there: here for there, here in made.items() if here})
        _say_missing(made, pairs, shown.say)
        if not pairs:
            raise Error(
                Kind.CONFLICT,
                "Nothing can be compared: models need answers (`record`), and to be made again (`retrain`).",
            )
        reports = []
        for pair in pairs:
            lines = comparing.run(pair, shown.count)
            shown.end()
            reports.append(_report(pair, lines, comparing.files(pair), thresholds))
            if show:
                _show_texts(lines)
            if directory_of_configurations is not None:
                path = _write(directory_of_configurations, pair, shown_url(data), lines)
                shown.say(f"{path} has questions and answers unencrypted.")
        _show(reports, as_json=as_json)
        _check_any(reports)
        _end(reports, shown.say)


def _thresholds(least: Sequence[str]) -> Mapping[str, float]:
    found = {}
    for one in least:
        name, _, share = one.partition("=")
        try:
            found[name] = float(share)
        except ValueError:
            found[name] = -1.0
        if name not in figures.MEASURES or not 0.0 <= found[name] <= 1.0:
            raise click.UsageError(
                f"--at-least {one}: give one of {', '.join(figures.MEASURES)} and a share from 0 to 1, as exact=0.9."
            )
    return found


def _say_missing(
    made: Mapping[str, str | None], pairs: Sequence[Pair], say: Callable[[str], None]
) -> None:
    compared = {one.model for one in pairs}
    for model, here in made.items():
        if here is None:
            say(f"{model} was not made again yet: run `migrate openai retrain`.")
        elif model not in compared:
            say(f"{model} has no recorded answers: run `migrate openai record` while it answers.")


def _report(
    pair: Pair, lines: Sequence[Object], files: Sequence[str], thresholds: Mapping[str, float]
) -> Object:
    found = figures.together([one["figures"] for one in lines])
    return {
        "source_model": pair.model,
        "model": pair.model_here,
        "figures": found,
        "below": figures.below(found, thresholds),
        "files": list(files),
    }


def _show(reports: Sequence[Object], *, as_json: bool) -> None:
    if as_json:
        show_json({"comparisons": list(reports)})
        return
    names = ("model there", "model here", "answers", *figures.MEASURES, "length", "refused")
    rows = []
    for one in reports:
        found = one["figures"]
        shares = [_share(found[name]) for name in figures.MEASURES]
        length = UNKNOWN if found["length"] is None else f"{found['length']:.2f}"
        refused = f"{found['refused_there']} / {found['refused_here']}"
        rows.append((one["source_model"], one["model"], found["answers"], *shares, length, refused))
    show_table(names, rows)


def _share(measure: Object) -> str:
    return UNKNOWN if measure["share"] is None else f"{measure['share']:.3f} of {measure['of']}"


def _show_texts(lines: Sequence[Object]) -> None:
    for one in lines:
        if one["figures"].get(figures.EXACT):
            continue
        asked = one["request"]["messages"][-1].get("content")
        click.echo(f"line {one['line']}: {plain(asked)}")
        for side in ("there", "here"):
            choices = (one[side].get("response") or {}).get("choices") or [{}]
            click.echo(f"  {side}: {plain(json.dumps(choices[0].get('message')))}")


def _write(directory: Path, pair: Pair, url: str, lines: Sequence[Object]) -> Path:
    """Write a configuration that only its owner can read; return its path."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{pair.model_here.replace(':', '-')}.promptfoo.json"
    content = json.dumps(promptfoo.configuration(pair.model_here, url, lines), indent=1)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    return path


def _check_any(reports: Sequence[Object]) -> None:
    """Raise Error(NOT_FOUND) if nothing was compared."""
    if not any(one["figures"]["answers"] for one in reports):
        raise Error(
            Kind.NOT_FOUND,
            "No recorded answer is on this server, so nothing was compared. They are on the server at which `record` was"
            " run: name that one; or they were deleted there.",
        )


def _end(reports: Sequence[Object], say: Callable[[str], None]) -> None:
    """Say which measures are below their threshold. Raises Error if any is."""
    failing = [one for one in reports if one["below"]]
    for one in failing:
        say(
            f"{one['model']} is below the threshold, or was not measured: {', '.join(one['below'])}."
        )
    if failing:
        raise Error(Kind.INVALID, f"{len(failing)} of {len(reports)} models are below a threshold.")
