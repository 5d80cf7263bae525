"""Deleting models and files: the plan, the confirmation, and the deletion."""

from collections.abc import Iterator
from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Object
from tunewarden.cli.output import plain, show_json, shown_time
from tunewarden.errors import Error, Kind


def delete(
    what: str,
    artifact_id: str,
    data: Path | None,
    *,
    yes: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete one of `what` (models, files) and print the deletion's id, or show the plan. Raises Error.

    What was shown is what is deleted: if the plan changes before the id is typed, nothing is.
    """
    with client.opened(data) as server:
        fingerprint = None
        if dry_run or not yes:
            plan = server.get(what, artifact_id, "deletion_plan")
            if dry_run:
                _show(plan, as_json=as_json)
                return
            _ask(plan, force=force)
            fingerprint = plan["fingerprint"]
        forced = {"force": "true"} if force else {}
        deleted = server.delete(what, artifact_id, if_match=fingerprint, **forced)
    if as_json:
        show_json(deleted)
    else:
        click.echo(deleted["deletion"])


def _show(plan: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(plan)
    else:
        kind = _kind(plan)
        click.echo(f"{kind}: {plain(plan[kind])}")
        for checkpoint in plan["checkpoints"]:
            click.echo(f"checkpoint: {plain(checkpoint)}")
        for line in _what_stays_and_who_uses_it(plan):
            click.echo(line)
        click.echo(f"blobs: {plan['blobs']}")
        click.echo(f"bytes: {plan['bytes']}")
        for blocker in plan["blockers"]:
            click.echo(f"blocker: {plain(_named(blocker))}")
    click.echo("This was a dry run. Nothing was deleted.", err=True)


def _ask(plan: Object, *, force: bool) -> None:
    """Show what will be deleted, and ask for the id; fail first if the deletion would be refused.

    Raises Error(CONFLICT) if something blocks it, click.ClickException if the typed id does not match.
    """
    kind = _kind(plan)
    wanted = plan[kind]
    left = [one for one in plan["blockers"] if not (force and one["forcible"])]
    if left:
        named = ", ".join(plain(_named(one)) for one in left[:5])
        advice = (
            "--force overrides that."
            if all(one["forcible"] for one in left)
            else "Lift holds first."
        )
        raise Error(Kind.CONFLICT, f"{plain(wanted)} is blocked by {named}. {advice}")
    click.echo(f"This deletes {plain(wanted)} for good. It cannot be undone.", err=True)
    if plan["checkpoints"]:
        click.echo("These checkpoints of its job are deleted too:", err=True)
    for checkpoint in plan["checkpoints"]:
        click.echo(f"  {plain(checkpoint)}", err=True)
    for line in _what_stays_and_who_uses_it(plan):
        click.echo(line, err=True)
    if click.prompt(f"Type the {kind}'s id to delete it", err=True) != wanted:
        raise click.ClickException("The id does not match. Nothing was deleted.")


def _what_stays_and_who_uses_it(plan: Object) -> Iterator[str]:
    """Yield lines about what a deletion does not reach, and about a model's use, aliases, jobs and engines."""
    for file in plan["derived_files"]:
        yield f"derived file that stays: {plain(file)}"
    for one in plan["exports"]:
        made = f"{shown_time(one['exported_at'])} by {plain(one['exported_by'])}"
        yield f"export that stays: {plain(one['model'])}, {made}"
    for name in plan["aliases"]:
        yield f"alias that loses it: {plain(name)}"
    for job in plan["jobs"]:
        yield f"job that would be cancelled: {plain(job)}"
    if (use := plan.get("usage")) is not None:
        last = use["last_used_at"]
        yield f"last use: {'never' if last is None else shown_time(last)}"
        yield f"requests in the last hour: {use['requests_last_hour']}"
        yield f"requests in the last day: {use['requests_last_day']}"
    for engine in plan.get("engines", ()):
        yield f"engine {plain(engine['engine'])}: {engine['state']}"


def _named(blocker: Object) -> str:
    return f"{blocker['type']} {blocker['id']}"


def _kind(plan: Object) -> str:
    return str(plan["object"]).partition(".")[0]
