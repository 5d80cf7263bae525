"""`migrate openai retrain`: the source's jobs are made again here, on bases of this server."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tunewarden.cli.client import Client
from tunewarden.cli.migrate_options import inventory_of, resumed, state_option, target_of
from tunewarden.cli.migration_target import HttpTarget
from tunewarden.cli.migration_trainer import HttpTrainer
from tunewarden.cli.options import data_option, dry_run_option, json_option, refusing
from tunewarden.cli.output import show_json, show_table
from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.migration import remaking
from tunewarden.migration.download import saved_files
from tunewarden.migration.retrain import REFUSED, Made, Retraining, Say

UNKNOWN = "-"


@click.command(
    "retrain",
    epilog="\b\nExample:\n  tunewarden migrate openai retrain --map gpt-4o-mini=my-base --map gpt-4o=my-base",
)
@click.option(
    "--map",
    "mappings",
    multiple=True,
    metavar="THERE=HERE",
    help="The base here for a base there, with or without its date; or a model here for a model there. May be repeated.",
)
@click.option(
    "--model", "models", multiple=True, help="Only this model of the source; may be repeated."
)
@click.option("--with-gone", is_flag=True, help="Also models that were deleted at the source.")
@click.option("--retry-failed", is_flag=True, help="Make jobs once more that failed here.")
@state_option
@dry_run_option
@json_option
@data_option
@refusing
def retrain_command(
    *,
    mappings: Sequence[str],
    models: Sequence[str],
    with_gone: bool,
    retry_failed: bool,
    directory: Path,
    data: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the jobs again here, each once, and wait until they have ended; print the model that each has there and here.

    Files must have been saved by `download`. A job that went on from a fine-tuned model waits for the one that is made
    of that. What is not carried over is said. Ctrl-C stops waiting, not the jobs; run it again to go on. The exit
    status is 1 if a job could not be made, or failed.
    """
    mapped = _mapped(mappings)
    with resumed(directory) as (noted, shown), target_of(noted, data, is_dry_run=dry_run) as server:
        found = inventory_of(noted)
        _check_used(remaking.unused(found, mapped))
        wanted = remaking.wanted(found, models, mapped, with_gone=with_gone)
        retraining = Retraining(
            HttpTrainer(server),
            noted,
            SystemClock(),
            saved_files(noted, HttpTarget(server)),
            retry_failed,
            shown.say,
        )
        for name in remaking.without_a_job(found, models):
            shown.say(f"{name} cannot be made again: no job of the source is known that made it.")
        if not models and (gone := remaking.left_out(found, wanted)):
            shown.say(
                f"Left out, because they were deleted at the source: {', '.join(gone)}. --with-gone or --model makes"
                " them again."
            )
        if dry_run:
            made = retraining.planned(wanted)
        else:
            _check_is_served(server)
            made = list(retraining.run(wanted, shown.count))
        shown.end()
        _show(made, as_json=as_json)
        if dry_run:
            _end_plan(made, shown.say)
        else:
            _end(made, shown.say)


def _mapped(mappings: Sequence[str]) -> Mapping[str, str]:
    mapped = {}
    for one in mappings:
        there, equals, here = one.rpartition("=")
        if not equals or not there or not here:
            raise click.UsageError(f"--map {one}: give THERE=HERE, as gpt-4o-mini=my-base.")
        if there in mapped:
            raise click.UsageError(f"--map {one}: {there} is mapped twice. Map it once.")
        mapped[there] = here
    return mapped


def _check_used(unused: Sequence[str]) -> None:
    """Raise click.UsageError for what is mapped to no purpose, which is a typing mistake."""
    if unused:
        raise click.UsageError(
            f"--map: no job of the source was made on {', '.join(unused)}. `migrate openai inventory` shows what they"
            " were made on."
        )


def _check_is_served(server: Client) -> None:
    if not server.is_served():
        raise Error(
            Kind.UNAVAILABLE,
            "No server runs on this data directory, and without one no job is trained: run `tunewarden serve` first.",
        )


def _show(all_made: Sequence[Made], *, as_json: bool) -> None:
    if as_json:
        show_json({"jobs": [_object(one) for one in all_made]})
        return
    rows = [
        (one.wanted.model, one.model or UNKNOWN, one.wanted.job, one.job or UNKNOWN, one.status)
        for one in all_made
    ]
    show_table(("model there", "model here", "job there", "job here", "status"), rows)


def _object(made: Made) -> dict[str, Any]:
    wanted = made.wanted
    return {
        "source_job": wanted.job,
        "source_model": wanted.model,
        "continues": wanted.continues,
        "base": None if wanted.continues else wanted.base,
        "job": made.job,
        "model": made.model,
        "status": made.status,
        "reason": made.reason,
        "not_carried_over": made.notes,
    }


def _end_plan(all_made: Sequence[Made], say: Say) -> None:
    """Say what would be made. Raises Error if anything would be refused, as without --dry-run."""
    for one in all_made:
        for note in one.notes:
            say(f"{one.wanted.job}: {note}.")
    _say_reasons(all_made, say)
    say("This was a dry run. Nothing was made.")
    if refused := sum(one.status == REFUSED for one in all_made):
        raise Error(Kind.INVALID, f"{refused} models would not be made again.")


def _say_reasons(all_made: Sequence[Made], say: Say) -> None:
    for one in all_made:
        if one.reason:
            say(f"{one.wanted.job} ({one.wanted.model}): {one.reason}.")


def _end(all_made: Sequence[Made], say: Say) -> None:
    """Say what was not made. Raises Error if anything was not."""
    _say_reasons(all_made, say)
    missing = sum(one.status != remaking.SUCCEEDED for one in all_made)
    say(f"{len(all_made) - missing} models are made again here, {missing} are not.")
    if missing:
        raise Error(Kind.INVALID, f"{missing} models were not made again.")
