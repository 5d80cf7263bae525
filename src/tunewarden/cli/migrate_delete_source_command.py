"""`migrate openai delete-source`: models and files are deleted at the source."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tunewarden.cli.confirmation import confirm, was_dry_run
from tunewarden.cli.migrate_options import Migration, opened, source_options, target_of
from tunewarden.cli.migration_target import HttpTarget
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import show_json, show_table
from tunewarden.errors import Error, Kind
from tunewarden.migration import source_deletion, switching
from tunewarden.migration.download import saved_files
from tunewarden.migration.source_deletion import (
    DELETED,
    FILES,
    GONE,
    MODELS,
    NOTICE,
    REFUSED,
    Choice,
    Doomed,
    SourceDeletion,
)


@click.command(
    "delete-source",
    epilog="\b\nExample:\n  tunewarden migrate openai delete-source --source-key-file openai.key --dry-run",
)
@source_options
@click.option(
    "--only",
    type=click.Choice([MODELS, FILES]),
    help="Only models, or only files. [default: both]",
)
@click.option(
    "--with-unsaved",
    is_flag=True,
    help="Also models that were not made again here, and files that are not saved here.",
)
@dry_run_option
@yes_option
@json_option
@data_option
@refusing
def delete_source_command(
    *,
    only: str | None,
    with_unsaved: bool,
    data: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Delete at the source what was moved here: models made again, with their checkpoints, and files saved here.

    It asks for their number. What the source answers is kept in the state directory: told by it, not proven. What it
    does not know any more counts as gone. Run it again to go on. The exit status is 1 if it refused to delete any.
    """
    with (
        opened(**where) as migration,
        target_of(migration.state, data, source=migration.source, is_dry_run=dry_run) as server,
    ):
        kinds = _kinds(migration, only)
        choice = source_deletion.chosen(
            migration.inventory(),
            kinds,
            switching.made_again(migration.inventory(), migration.state, ()),
            saved_files(migration.state, HttpTarget(server)),
            with_unsaved=with_unsaved,
        )
        deletion = SourceDeletion(migration.source, migration.state, migration.clock)
        for name, why in choice.spared.items():
            migration.shown.say(f"Spared: {name}: {why}. --with-unsaved deletes it too.")
        if dry_run:
            _show_plan(deletion.left(choice.doomed), as_json=as_json)
            was_dry_run("deleted")
            return
        _ask(migration, deletion, choice, yes=yes)
        told = deletion.run(choice.doomed, migration.shown.count)
        migration.shown.end()
        _show(choice.doomed, told, as_json=as_json)
        _end(migration, told)


def _kinds(migration: Migration, only: str | None) -> Sequence[str]:
    """Return what is deleted. Raises Error(INVALID) for models of Azure, which has another API for them."""
    if migration.source.address.azure_version is None:
        return [only] if only else [MODELS, FILES]
    if only == MODELS:
        raise Error(
            Kind.INVALID,
            "Azure deletes models in its portal, with their deployments: delete them there.",
        )
    migration.shown.say(
        "Models of Azure are not deleted: do it in its portal, with their deployments."
    )
    return [FILES]


def _ask(migration: Migration, deletion: SourceDeletion, choice: Choice, *, yes: bool) -> None:
    """Ask for the number of what is left. Raises click.ClickException if another one is typed."""
    left = deletion.left(choice.doomed)
    if yes or not left:
        return
    models = sum(one.kind == MODELS for one in left)
    confirm(
        f"This deletes {models} models and {len(left) - models} files at {migration.source.address.url}.",
        str(len(left)),
        "number",
    )


def _show_plan(left: Sequence[Doomed], *, as_json: bool) -> None:
    if as_json:
        show_json({"to_delete": [{"kind": one.kind, "id": one.id} for one in left]})
    else:
        show_table(("kind", "id"), [(one.kind, one.id) for one in left])


def _show(doomed: Sequence[Doomed], told: Mapping[str, dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        answers = [{"kind": one.kind, "id": one.id, **told[one.id]} for one in doomed]
        show_json({"answers": answers, "notice": NOTICE})
        return
    rows = [(one.kind, one.id, told[one.id]["outcome"], told[one.id]["status"]) for one in doomed]
    show_table(("kind", "id", "outcome", "status"), rows)


def _end(migration: Migration, told: Mapping[str, dict[str, Any]]) -> None:
    """Say how many it told of. Raises Error if any was refused."""
    outcomes = [one["outcome"] for one in told.values()]
    together = sum(source_deletion.went_together(name, told) for name in told)
    cut = sum(source_deletion.was_cut(name, told) for name in told)
    earlier = f" {cut} deleted by an earlier request whose answer was cut," if cut else ""
    migration.shown.say(
        f"{outcomes.count(DELETED)} deleted, {together} checkpoints gone with their models,"
        f"{earlier} {outcomes.count(GONE) - together - cut} gone before (the source does not know them, status 404): {NOTICE}. Its answers are in {migration.state.directory / source_deletion.NAME}.json."
    )
    if refused := outcomes.count(REFUSED):
        raise Error(Kind.CONFLICT, f"The source refused to delete {refused}; they are still there.")
