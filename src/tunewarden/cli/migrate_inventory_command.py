"""`migrate openai inventory`: what is at the source, until when it answers, and what cannot be had any more."""

from datetime import date
from typing import Any

import click

from tunewarden.cli.migrate_options import Migration, opened, source_options
from tunewarden.cli.options import json_option, refusing
from tunewarden.cli.output import show_json, show_table
from tunewarden.migration import deadlines, inventory, values
from tunewarden.migration.state import Object

UNKNOWN = "-"


@click.command(
    "inventory",
    epilog="\b\nExample:\n  tunewarden migrate openai inventory --source-key-file openai.key",
)
@source_options
@json_option
@refusing
def inventory_command(*, as_json: bool, **where: Any) -> None:
    """List what is there: models by the day on which they stop, with their jobs and files.

    Columns: that day, the days left, model, job, training file, creation time, state. What cannot be had any more is
    named on standard error. The state directory gets all of it as inventory.json.
    """
    with opened(**where) as migration:
        found = inventory.read(migration.source, migration.clock, migration.shown.count)
        path = migration.state.write(inventory.NAME, found, indent=1)
        migration.shown.end()
        if as_json:
            show_json(found)
        else:
            _show(migration, found)
            migration.shown.say(f"All of it is in {path}.")


def _show(migration: Migration, found: Object) -> None:
    today = migration.clock.now().date()
    training = {job["id"]: job["training_file"] for job in found["jobs"]}
    show_table(
        ("stops on", "days left", "model", "job", "training file", "created", "state"),
        [
            (
                one["shutdown_on"] or UNKNOWN,
                _days_left(one["shutdown_on"], today),
                one["id"],
                one["job"] or UNKNOWN,
                training.get(one["job"]) or UNKNOWN,
                _day(one["created_at"]),
                one["state"],
            )
            for one in inventory.by_deadline(found)
        ],
    )
    say = migration.shown.say
    say(
        f"{len(found['models'])} models, {len(found['jobs'])} jobs, {len(found['files'])} files,"
        f" {sum(len(job['checkpoints']) for job in found['jobs'])} checkpoints."
    )
    if any(one["shutdown_on"] for one in found["models"]):
        left = (deadlines.LAST_NEW_JOB - today).days
        say(f"OpenAI takes no new jobs after {deadlines.LAST_NEW_JOB} ({left} days left).")
    for one in found["missing"]:
        say(f"Missing: {one['kind']} {one['id']}: {one['reason']} ({_needing(one['needed_by'])}).")


def _needing(needed_by: list[str]) -> str:
    first = ", ".join(needed_by[:3])
    return f"{first} and {len(needed_by) - 3} more" if len(needed_by) > 3 else first


def _days_left(shutdown_on: str | None, today: date) -> str:
    return UNKNOWN if shutdown_on is None else str((date.fromisoformat(shutdown_on) - today).days)


def _day(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else values.day(seconds)
