"""Erasing a file with everything that learned from it: the plan, the confirmation, the case and its progress."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import Client, Object
from tunewarden.cli.output import plain, show_json
from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind

FILES = "files"
CASES = "deletion_cases"
DELETING = "deleting"
POLL_SECONDS = 0.5
NAMED_MAX = 5
# What a plan calls them, and what a person reads.
MEMBERS = (("models", "model"), ("checkpoints", "checkpoint"), ("files", "derived file"))


def delete(
    file_id: str, data: Path | None, *, yes: bool, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete a file with everything that learned from it and print the case's id, or show the plan. Raises Error.

    What was shown is what is deleted: if the plan changes before the id is typed, nothing is.
    """
    with client.opened(data) as server:
        fingerprint = None
        if dry_run or not yes:
            plan = server.get(FILES, file_id, "deletion_plan")
            if dry_run:
                _show(plan, as_json=as_json)
                return
            _ask(plan, force=force)
            fingerprint = plan["fingerprint"]
        case = _ended(server, file_id, fingerprint, {"force": "true"} if force else {})
    if as_json:
        show_json(case)
    else:
        click.echo(case["id"])
    if case["status"] == "partial":
        click.echo(
            f"Partial: {case['hidden']} of other projects belong to it and were not deleted. Who is in these projects"
            " must delete them.",
            err=True,
        )


def _ended(server: Client, file_id: str, fingerprint: str | None, forced: dict[str, str]) -> Object:
    """Delete, and wait until all members are gone; return the case. Raises Error."""
    try:
        deleted = server.delete(FILES, file_id, if_match=fingerprint, cascade="models", **forced)
    except Error as error:
        # Without a server nobody continues it: the next start does.
        if error.deletion_case is None or not server.is_served():
            raise
        return _followed(server, error.deletion_case)
    return server.get(CASES, deleted["deletion_case"]["id"])


def _followed(server: Client, case_id: str) -> Object:
    """Show a case's progress until it is finished; return it."""
    clock, shown = SystemClock(), None
    while True:
        case = server.get(CASES, case_id)
        if case["status"] != DELETING:
            return case
        gone = sum(one["status"] != DELETING for one in case["data"])
        said = f"{case['id']}: {gone} of {case['members']} are deleted"
        if said != shown:
            click.echo(said, err=True)
        shown = said
        clock.sleep(POLL_SECONDS)


def _show(plan: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(plan)
    else:
        click.echo(f"file: {plain(plan['file'])}")
        for line in _lines(plan["learned"]):
            click.echo(line)
        click.echo(f"blobs: {plan['blobs'] + plan['learned']['blobs']}")
        click.echo(f"bytes: {plan['bytes'] + plan['learned']['bytes']}")
        for blocker in plan["learned"]["blockers"]:
            click.echo(f"blocker: {plain(_named(blocker))}")
    click.echo("This was a dry run. Nothing was deleted.", err=True)


def _ask(plan: Object, *, force: bool) -> None:
    """Show what will be deleted, and ask for the file's id; fail first if the deletion would be refused.

    Raises Error(CONFLICT) if something blocks it, click.ClickException if the typed id does not match.
    """
    learned, file_id = plan["learned"], plan["file"]
    left = [one for one in learned["blockers"] if not (force and one["forcible"])]
    if left:
        named = "; ".join(plain(_named(one)) for one in left[:NAMED_MAX])
        can = all(one["forcible"] for one in left)
        advice = "--force overrides that." if can else "Lift holds first."
        told = f"`tunewarden deletions report {plain(file_id)}` tells all of it."
        raise Error(Kind.CONFLICT, f"It is blocked: {named}. {advice} {told}")
    click.echo(
        f"This deletes {plain(file_id)} and everything that learned from it, for good. It cannot be undone.",
        err=True,
    )
    for line in _lines(learned):
        click.echo(f"  {line}", err=True)
    if click.prompt("Type the file's id to delete all of it", err=True) != file_id:
        raise click.ClickException("The id does not match. Nothing was deleted.")


def _lines(learned: Object) -> list[str]:
    """Return a line for each member, each job that is cancelled, and for what is hidden."""
    declared = set(learned["declared"])
    found = []
    for member, what in MEMBERS:
        for one in learned[member]:
            mark = " (declared, not seen here)" if one in declared else ""
            found.append(f"{what}: {plain(one)}{mark}")
    found += [f"job that is cancelled: {plain(one)}" for one in learned["jobs"]]
    if learned["hidden_jobs"]:
        found.append(f"jobs of other projects that are cancelled: {learned['hidden_jobs']}")
    if learned["hidden"]:
        found.append(f"of other projects, which stay: {learned['hidden']}")
    if not learned["whole"]:
        found.append("there is more than one case can delete")
    return found


def _named(blocker: Object) -> str:
    about = "" if blocker["id"] == blocker["artifact"] else f" {blocker['id']}"
    return f"{blocker['artifact']} by {blocker['type']}{about}"
