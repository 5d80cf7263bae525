"""Deleting many models: what would be deleted, one sentence to type, and the deletion of what was shown."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tunewarden.cli import client, json_lines
from tunewarden.cli.client import Client, Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.durations import Days
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

Command = TypeVar("Command", bound=Callable[..., Any])
KEY_LENGTH = 24
# Of a run's exit status; the first that happened counts.
STATUS_OF = {
    "deleting": ExitCode.UNAVAILABLE,
    "refused": ExitCode.REFUSED,
    "spared": ExitCode.CONFLICT,
    "not_found": ExitCode.NOT_FOUND,
}

FILTER_OPTIONS = (
    click.option("--base", help="Models of this base only."),
    click.option(
        "--suffix", help="Models with this suffix only; * and ? stand for any characters."
    ),
    click.option("--project", help="Models of the project with this id only."),
    click.option(
        "--older-than", "older_than_days", type=Days(), help="Made so long ago: 90d, 12w."
    ),
    click.option(
        "--unused-for", "unused_for_days", type=Days(), help="Not used for so long: 30d, 4w."
    ),
    click.option(
        "--keep-latest",
        type=click.IntRange(min=1),
        help="Spare so many of the newest with the same base and suffix.",
    ),
)


def filter_options(command: Command) -> Command:
    """Add the options that choose models."""
    for option in reversed(FILTER_OPTIONS):
        command = option(command)
    return command


def chosen(**options: object) -> Object:
    """Return what the options of `filter_options` say, as the API takes it."""
    return {name: value for name, value in options.items() if value is not None}


def delete(
    data: Path | None,
    body: Object,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    key: str | None = None,
) -> None:
    """Delete what a body of `POST /v1/deletions` says, or show it. Raises Error, click.ClickException.

    Without `yes`, what was shown is what is deleted: if that changes before the sentence is typed, nothing is.
    """
    with client.opened(data) as server:
        if dry_run:
            json_lines.end(_planned(server, body, as_json=as_json), as_json=as_json)
            was_dry_run("deleted")
            return
        headers = {"idempotency-key": key or token(KEY_LENGTH)}
        if not yes:
            fingerprint = _ask(server, body)
            if fingerprint is None:
                return
            headers["if-match"] = fingerprint
        summary = _deleted(server, body, headers, as_json=as_json)
    json_lines.end(summary, as_json=as_json)
    # What a filter chooses may be blocked; what is named by its id is meant.
    is_meant = "ids" in body
    failed = (one for one in STATUS_OF if summary["counts"].get(one))
    status = next((STATUS_OF[one] for one in failed if is_meant or one == "deleting"), None)
    if status is not None:
        raise click.exceptions.Exit(status)


def _planned(server: Client, body: Object, *, as_json: bool) -> Object:
    return json_lines.read(
        server,
        "POST",
        "deletions",
        each=lambda one: json_lines.show(one, as_json=as_json),
        fields=body,
        dry_run="true",
    )


def _ask(server: Client, body: Object) -> str | None:
    """Show what would be deleted and ask for the sentence; return its fingerprint, None if it is nothing."""
    rows: list[Object] = []
    summary = json_lines.read(
        server, "POST", "deletions", each=rows.append, fields=body, dry_run="true"
    )
    show_rows(rows)
    wanted = _sentence([one for one in rows if one["outcome"] == "delete"])
    if wanted is None:
        click.echo("There is nothing to delete.", err=True)
        return None
    click.echo("This cannot be undone.", err=True)
    if click.prompt(f"Type '{wanted}' to go on", err=True) != wanted:
        raise click.ClickException("That is not the sentence. Nothing was deleted.")
    return str(summary["fingerprint"])


def show_rows(rows: Sequence[Object]) -> None:
    """Show on standard error what would become of each."""
    for one in rows:
        json_lines.show(one, as_json=False, to_stderr=True)


def _sentence(rows: Sequence[Object]) -> str | None:
    if not rows:
        return None
    models = sum("model" in one for one in rows)
    counts = ((models, "model"), (len(rows) - models, "file"))
    said = (f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)
    return f"delete {' and '.join(said)}"


def _deleted(server: Client, body: Object, headers: dict[str, str], *, as_json: bool) -> Object:
    """Delete; say how to go on if the answer breaks off."""
    try:
        return json_lines.read(
            server,
            "POST",
            "deletions",
            each=lambda one: json_lines.show(one, as_json=as_json),
            fields=body,
            headers=headers,
        )
    except Error as error:
        if error.kind is Kind.UNAVAILABLE:
            key = headers["idempotency-key"]
            click.echo(f"Run the same with --resume {key} to go on.", err=True)
        raise
