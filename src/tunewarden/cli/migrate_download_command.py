"""`migrate openai download`: the source's training, validation and result files become sealed files here."""

from pathlib import Path
from typing import Any

import click

from tunewarden.cli.migrate_options import opened, source_options, target_of
from tunewarden.cli.migration_target import HttpTarget
from tunewarden.cli.options import data_option, json_option, refusing
from tunewarden.cli.output import show_json, show_table
from tunewarden.errors import Error, Kind
from tunewarden.migration.download import Downloads


@click.command(
    "download",
    epilog="\b\nExample:\n  tunewarden migrate openai download --source-key-file openai.key",
)
@source_options
@json_option
@data_option
@refusing
def download_command(*, data: Path | None, as_json: bool, **where: Any) -> None:
    """Save the files that the inventory lists, and print the id that each has there and here.

    Each is sealed as it comes: its text is never on a disk. What is saved already stays as it is. The exit status is 1
    if a file that was listed could not be saved; then it is named with the reason.
    """
    with (
        opened(**where) as migration,
        target_of(migration.state, data, source=migration.source) as server,
    ):
        found = migration.inventory()
        target = HttpTarget(server)
        downloads = Downloads(migration.source, target, migration.state, migration.shown.count)
        outcome = downloads.run(found)
        migration.shown.end()
        rows = [(one, downloads.saved_as(one)) for one in (*outcome.kept, *outcome.saved)]
        if as_json:
            show_json({"files": dict(rows), "failed": outcome.failed})
        else:
            show_table(("there", "here"), rows)
        say = migration.shown.say
        say(f"{len(outcome.saved)} files saved, {len(outcome.kept)} were here already.")
        for missing in found["missing"]:
            if missing["kind"] == "file":
                say(f"Missing: file {missing['id']}: {missing['reason']}.")
        for file_id, why in outcome.failed.items():
            say(f"Not saved: {file_id}: {why}")
        if outcome.failed:
            raise Error(Kind.INVALID, f"{len(outcome.failed)} files could not be saved.")
