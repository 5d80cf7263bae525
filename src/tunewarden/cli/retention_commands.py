"""Commands about retention: what is old, what rules would do with it, and whether they act."""

from pathlib import Path

import click

from tunewarden.cli import bulk_deleting, client, json_lines
from tunewarden.cli.bulk_deleting import filter_options
from tunewarden.cli.client import Client, Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import show_json, shown_time
from tunewarden.cli.retention_rule_commands import rules

ACTS = ("delete", "archive", "announce")
ONE_OF = "Give either a rule's id or options that choose models."


@click.group()
def retention() -> None:
    """Old models: preview and delete them, by hand or by rules.

    Nothing touches what is on hold, protected, meant by an alias, or needed by a job.
    """


retention.add_command(rules)


@retention.command(
    "preview",
    epilog="\b\nExamples:\n  tunewarden retention preview --older-than 90d"
    "\n  tunewarden retention preview rule_…",
)
@click.argument("rule_id", required=False)
@filter_options
@json_option
@data_option
@refusing
def retention_preview(
    rule_id: str | None, data: Path | None, *, as_json: bool, **chosen: object
) -> None:
    """Show what would be deleted or archived and what is spared, each with its reasons; nothing changes."""
    wanted = bulk_deleting.chosen(**chosen)
    if (rule_id is None) == (not wanted):
        raise click.UsageError(ONE_OF)
    if rule_id is None:
        body: Object = {"filter": wanted}
        bulk_deleting.delete(data, body, yes=True, dry_run=True, as_json=as_json)
        return
    with client.opened(data) as server:
        summary = _previewed(server, rule_id, as_json=as_json)
    json_lines.end(summary, as_json=as_json)


@retention.command(
    "run",
    epilog="\b\nExamples:\n  tunewarden retention run --older-than 90d"
    "\n  tunewarden retention run rule_… --yes",
)
@click.argument("rule_id", required=False)
@filter_options
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def retention_run(
    rule_id: str | None,
    data: Path | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **chosen: object,
) -> None:
    """Delete old models now, or do now what a rule does; print what became of each.

    Without --yes it shows what would happen and asks for one sentence: what was shown is what is done.
    """
    wanted = bulk_deleting.chosen(**chosen)
    if (rule_id is None) == (not wanted):
        raise click.UsageError(ONE_OF)
    if rule_id is None:
        body: Object = {"filter": wanted}
        bulk_deleting.delete(data, body, yes=yes, dry_run=dry_run, as_json=as_json)
        return
    with client.opened(data) as server:
        if dry_run:
            json_lines.end(_previewed(server, rule_id, as_json=as_json), as_json=as_json)
            was_dry_run("deleted")
            return
        headers = {}
        if not yes:
            fingerprint = _ask(server, rule_id)
            if fingerprint is None:
                return
            headers["if-match"] = fingerprint
        summary = json_lines.read(
            server,
            "POST",
            "retention",
            "rules",
            rule_id,
            "run",
            each=lambda one: json_lines.show(one, as_json=as_json),
            headers=headers,
        )
    json_lines.end(summary, as_json=as_json)


@retention.command("status")
@json_option
@data_option
@refusing
def retention_status(data: Path | None, *, as_json: bool) -> None:
    """Show whether rules act, or are paused and why."""
    with client.opened(data) as server:
        state = server.get("retention")
    _show(state, as_json=as_json)


@retention.command("resume")
@json_option
@data_option
@refusing
def retention_resume(data: Path | None, *, as_json: bool) -> None:
    """Let rules act again after a restore, a replay or a jump of the clock. Look at their previews first."""
    with client.opened(data) as server:
        state = server.post("retention", "resume")
    _show(state, as_json=as_json)


def _previewed(server: Client, rule_id: str, *, as_json: bool) -> Object:
    return json_lines.read(
        server,
        "GET",
        "retention",
        "rules",
        rule_id,
        "preview",
        each=lambda one: json_lines.show(one, as_json=as_json),
    )


def _ask(server: Client, rule_id: str) -> str | None:
    """Show what the rule would do, and ask for the sentence; return the fingerprint, None if it would do nothing.

    Raises click.ClickException for another sentence.
    """
    rows: list[Object] = []
    place = ("retention", "rules", rule_id, "preview")
    summary = json_lines.read(server, "GET", *place, each=rows.append)
    bulk_deleting.show_rows(rows)
    if not any(summary["counts"].get(one) for one in ACTS):
        click.echo("There is nothing to do.", err=True)
        return None
    wanted = f"run {rule_id}"
    if click.prompt(f"Type '{wanted}' to go on", err=True) != wanted:
        raise click.ClickException("That is not the sentence. Nothing was changed.")
    return str(summary["fingerprint"])


def _show(state: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(state)
    elif state["paused"]:
        since = shown_time(state["paused_at"])
        click.echo(f"paused since {since}: {state['message']}")
    else:
        click.echo("rules act")
