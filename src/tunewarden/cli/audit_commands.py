"""Commands about the audit log."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from tunewarden import config
from tunewarden.cli import client
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object, Value
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.options import (
    administering_option,
    data_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table, shown_time
from tunewarden_receipts.receipt import LogKeyError

Command = TypeVar("Command", bound=Callable[..., Any])
LOGS = ("organization", "audit_logs")
FIELDS = ("time", "type", "actor", "resource", "id")
TIMES = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])
OPTIONS = (
    click.option("--type", "types", multiple=True, help="Only events of this type; repeatable."),
    click.option(
        "--resource", "resources", multiple=True, help="Only events about this id; repeatable."
    ),
    click.option(
        "--actor",
        "actors",
        multiple=True,
        help="Only events by this user, service account or key; repeatable.",
    ),
    click.option(
        "--email", "emails", multiple=True, help="Only events by the user with this address."
    ),
    click.option(
        "--project", "projects", multiple=True, help="Only events in this project; repeatable."
    ),
    click.option("--since", type=TIMES, help="Only events from this time on, in UTC."),
    click.option("--until", type=TIMES, help="Only events before this time, in UTC."),
)


def filtering(command: Command) -> Command:
    """Add the options of filters to a command, which gets them as one query, `query`."""

    @functools.wraps(command)
    def run(
        *,
        types: tuple[str, ...],
        resources: tuple[str, ...],
        actors: tuple[str, ...],
        emails: tuple[str, ...],
        projects: tuple[str, ...],
        since: datetime | None,
        until: datetime | None,
        **others: Any,
    ) -> Any:
        query: dict[str, Value] = {
            "event_types[]": types,
            "resource_ids[]": resources,
            "actor_ids[]": actors,
            "actor_emails[]": emails,
            "project_ids[]": projects,
            "effective_at[gte]": _seconds(since),
            "effective_at[lt]": _seconds(until),
        }
        return command(query=query, **others)

    for option in reversed(OPTIONS):
        run = option(run)
    return run  # type: ignore[return-value]  # click's options are not typed by what they decorate


@click.group()
def audit() -> None:
    """What was done, by whom: list, export, verify. Event types: docs/reference/audit-events.md."""


@audit.command(
    "list",
    epilog="\b\nExample:\n  tunewarden audit list --type resource.deleted --since 2026-01-31",
)
@filtering
@limit_option
@json_option
@administering_option
@refusing
def audit_list(
    query: dict[str, Value], limit: int | None, data: Path | None, *, as_json: bool
) -> None:
    """List events, newest first: time, type, actor, resource, id."""
    with client.administering(data) as server:
        found = server.pages(*LOGS, limit=limit, page_size=ADMINISTRATION_PAGE_SIZE, **query)
    _show(found, as_json)


@audit.command(
    "export", epilog="\b\nExample:\n  tunewarden audit export --until 2026-02-01 > 2026-01.jsonl"
)
@filtering
@click.option(
    "--output",
    type=click.File("wb", lazy=True),
    default="-",
    help="Write to this file. [default: standard output]",
)
@administering_option
@refusing
def audit_export(query: dict[str, Value], output: BinaryIO, data: Path | None) -> None:
    """Write events as lines of JSON, oldest first: the bytes that the daily digests are made of."""
    with client.administering(data) as server:
        server.stream(*LOGS, "export", into=output.write, **query)


@audit.command("operator", epilog="\b\nExample:\n  tunewarden audit operator --data DIR")
@limit_option
@json_option
@data_option
@refusing
def audit_operator(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List what was done to the whole server, newest first: bases, its keys, expiry. On the server's machine only.

    These events are of no organization, so that no organization's list has them.
    """
    from tunewarden.cli import audit_operations  # noqa: PLC0415  on the server's machine only

    _show(audit_operations.of_the_operator(config.of_this_machine(data), limit=limit), as_json)


@audit.command("retention")
@click.option("--days", type=int, help="Keep events for so many days, 90 at least.")
@click.option("--for-ever", is_flag=True, help="Keep events for ever, as without this setting.")
@json_option
@administering_option
@refusing
def audit_retention(days: int | None, data: Path | None, *, for_ever: bool, as_json: bool) -> None:
    """Show or set for how long events are kept."""
    if days is not None and for_ever:
        raise click.UsageError("Give --days or --for-ever, not both.")
    with client.administering(data) as server:
        if days is None and not for_ever:
            found = server.get(*LOGS, "retention")
        else:
            found = server.post(*LOGS, "retention", fields={"days": days})
    if as_json:
        show_json(found)
    else:
        click.echo("for ever" if found["days"] is None else f"{found['days']} days")


@audit.command("verify", epilog="\b\nExample:\n  tunewarden audit verify --log-key log.pem")
@click.option(
    "--log-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Over HTTP: the log's public key (PEM or C2SP vkey), from a source you trust. [default: the server's answer]",
)
@json_option
@data_option
@refusing
def audit_verify(log_key: Path | None, data: Path | None, *, as_json: bool) -> None:
    """Check events against the daily digests in the log: your organization's over HTTP, else all on the server's machine.

    Exit status 1 if any is missing, changed, inserted or back-dated; the first one of each day is named. A server may
    be running.
    """
    if client.administers_over_http(data):
        from tunewarden.cli import audit_check  # noqa: PLC0415  for who asks over HTTP only

        key = None if log_key is None else log_key.read_bytes()
        try:
            with client.administering(data) as server:
                found = audit_check.OwnLog(server, key).verify()
        except LogKeyError as error:
            raise click.UsageError(error.reason) from error
        if key is None and found["digests"]:
            click.echo(
                "The log's key is the one that the server gave; compare it: --log-key.", err=True
            )
    elif log_key is not None:
        raise click.UsageError(
            "--log-key is for a check over HTTP: set TUNEWARDEN_URL and TUNEWARDEN_ADMIN_KEY."
        )
    else:
        from tunewarden.cli import audit_operations  # noqa: PLC0415  on the server's machine only

        found = audit_operations.verify(config.of_this_machine(data))
    if as_json:
        show_json(found)
    else:
        for problem in found["problems"]:
            click.echo(_told(problem))
        said = f"{found['digests']} digests and {found['events']} events were checked"
        if found["expired"]:
            said += f"; {found['expired']} have expired, and their hashes were"
        click.echo(
            f"{said}. {found['undigested']} events are newer than the last digest.", err=True
        )
        if found["unproven"]:
            click.echo(
                f"{found['unproven']} digests have no proof that they are in the log. The newest one gets it within a"
                " minute: verify again.",
                err=True,
            )
    if found["problems"]:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _show(found: Object, as_json: bool) -> None:  # noqa: FBT001  as the commands get it
    if as_json:
        show_json(found)
        return
    show_table(FIELDS, (_row(one) for one in found["data"]))
    say_if_more(found)


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp())


def _row(event: Object) -> tuple[str, ...]:
    actor = event["actor"]["api_key"] if event["actor"] else None
    who = "-"
    if actor is not None:
        user = actor.get("user") or actor.get("service_account") or {}
        who = user.get("email") or user.get("id") or actor["id"]
    resource = event[event["type"]]["id"] or "-"
    return shown_time(event["effective_at"]), event["type"], who, resource, event["id"]


def _told(problem: Object) -> str:
    """Return a problem as one line: digest, organization, event, what."""
    named = [f"digest {problem['digest']}"]
    if problem["organization"] is not None:
        named.append(f"organization {problem['organization'] or '(the operator)'}")
    if problem["event"] is not None:
        named.append(f"event {problem['event']}")
    return plain(f"{', '.join(named)}: {problem['what']}")
