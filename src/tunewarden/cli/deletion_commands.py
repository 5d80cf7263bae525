"""Commands about deletions."""

from pathlib import Path
from typing import Any

import click

from tunewarden.cli import bulk_deleting, case_report, client, plan_report
from tunewarden.cli.bulk_deleting import filter_options
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.options import (
    data_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import say_if_more, show_json, shown_time
from tunewarden.ids import Prefix, is_minted


@click.group()
def deletions() -> None:
    """Deletions and their receipts."""


@deletions.command(
    "create",
    epilog="\b\nExamples:\n  tunewarden deletions create --older-than 90d --unused-for 30d --dry-run"
    "\n  tunewarden deletions create ft:… ft:… file-…",
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@click.option("--resume", "key", help="Go on with a request that broke off: its Idempotency-Key.")
@yes_option
@dry_run_option
@json_option
@data_option
@refusing
def deletions_create(
    ids: tuple[str, ...],
    key: str | None,
    data: Path | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **chosen: object,
) -> None:
    """Delete many models and files, by ids or by a filter; print what became of each.

    What is blocked or on hold is spared. Without --yes it shows what would be deleted and asks for one sentence.
    """
    wanted = bulk_deleting.chosen(**chosen)
    if bool(ids) == bool(wanted):
        raise click.UsageError("Give either ids or options that choose models.")
    body = {"ids": list(ids)} if ids else {"filter": wanted}
    bulk_deleting.delete(data, body, yes=yes, dry_run=dry_run, as_json=as_json, key=key)


@deletions.command("list")
@limit_option
@json_option
@data_option
@refusing
def deletions_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List deletions, newest first: id, status, time, model or file."""
    with client.opened(data) as server:
        found = server.pages("deletions", limit=limit)
    say_if_more(found)
    if as_json:
        show_json(found)
        return
    for one in found["data"]:
        when = shown_time(one["requested_at"])
        what = one[one["object"].partition(".")[0]]
        click.echo(f"{one['id']}\t{one['status']}\t{when}\t{what}")


@deletions.command("settings")
@click.option(
    "--in-use-minutes",
    type=click.IntRange(min=1),
    help="So long after its last use a model is in use, and deleted with --force only.",
)
@click.option("--use-blocks-nothing", is_flag=True, help="As without this setting.")
@json_option
@data_option
@refusing
def deletions_settings(
    in_use_minutes: int | None, data: Path | None, *, use_blocks_nothing: bool, as_json: bool
) -> None:
    """Show or set what the organization asks of deletions."""
    if in_use_minutes is not None and use_blocks_nothing:
        raise click.UsageError("Give --in-use-minutes or --use-blocks-nothing, not both.")
    path = ("organization", "deletion_settings")
    with client.administering(data) as server:
        if in_use_minutes is None and not use_blocks_nothing:
            found = server.get(*path)
        else:
            found = server.post(*path, fields={"in_use_minutes": in_use_minutes})
    if as_json:
        show_json(found)
    else:
        minutes = found["in_use_minutes"]
        click.echo(f"in_use_minutes: {'-' if minutes is None else minutes}")


@deletions.command(
    "show", epilog="\b\nExample:\n  tunewarden deletions show del_… --receipt receipt.json"
)
@click.argument("deletion_id")
@click.option(
    "--receipt",
    "receipt_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the receipt to this file.",
)
@json_option
@data_option
@refusing
def deletions_show(
    deletion_id: str, receipt_file: Path | None, data: Path | None, *, as_json: bool
) -> None:
    """Show one deletion."""
    with client.opened(data) as server:
        deletion = server.get("deletions", deletion_id)
        if as_json:
            show_json(deletion)
        else:
            for name, value in deletion.items():
                click.echo(f"{name}: {_shown(name, value)}")
        if receipt_file is not None:
            receipt_file.write_bytes(server.download("deletions", deletion_id, "receipt"))


@deletions.command("cases", epilog="\b\nExample:\n  tunewarden deletions cases --limit 5")
@limit_option
@json_option
@data_option
@refusing
def deletions_cases(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List deletion cases, newest first: id, status, members, time, file."""
    with client.opened(data) as server:
        found = server.pages("deletion_cases", limit=limit)
    say_if_more(found)
    if as_json:
        show_json(found)
        return
    for one in found["data"]:
        when = shown_time(one["requested_at"])
        click.echo(
            f"{one['id']}\t{one['status']}\t{one['members']}\t{when}\t{one.get('file', '-')}"
        )


@deletions.command(
    "case", epilog="\b\nExample:\n  tunewarden deletions case case_… --receipts ./receipts"
)
@click.argument("case_id")
@click.option(
    "--receipts",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write all receipts here: case.json, and one for each member.",
)
@json_option
@data_option
@refusing
def deletions_case(
    case_id: str, directory: Path | None, data: Path | None, *, as_json: bool
) -> None:
    """Show one deletion case, and the state of each member.

    `tunewarden-receipts verify-case` checks the receipts offline, and that they are those of all members.
    """
    with client.opened(data) as server:
        case = server.get("deletion_cases", case_id)
        if as_json:
            show_json(case)
        else:
            _show_case(case)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            summary = server.download("deletion_cases", case_id, "receipt")
            (directory / "case.json").write_bytes(summary)
            for one in case["data"]:
                receipt = server.download("deletions", one["deletion"], "receipt")
                (directory / f"{one['deletion']}.json").write_bytes(receipt)


def _show_case(case: dict[str, Any]) -> None:
    for name, value in case.items():
        if name != "data":
            click.echo(f"{name}: {_shown(name, value)}")
    for one in case["data"]:
        what = one[one["object"].partition(".")[0]]
        click.echo(f"{one['deletion']}\t{one['status']}\t{what}")


@deletions.command(
    "report",
    epilog="\b\nExamples:\n  tunewarden deletions report case_… --html report.html"
    "\n  tunewarden deletions report file-… --html plan.html",
)
@click.argument("case_or_file", metavar="ID")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the report to this file, as a page to print.",
)
@json_option
@data_option
@refusing
def deletions_report(
    case_or_file: str, html: Path | None, data: Path | None, *, as_json: bool
) -> None:
    """Report a case: found, deleted, held, not reached, and how to check it.

    Every receipt is verified for it. Exit status 1 if one is not valid.

    With a file's id: report what `files delete --with-models` would do now, what is held and why, and what else blocks
    it. Nothing is deleted. Reasons of holds are in it if you are an Owner.
    """
    is_plan = is_minted(case_or_file, Prefix.FILE)
    path = (
        ("files", case_or_file, "deletion_plan", "report")
        if is_plan
        else ("deletion_cases", case_or_file, "report")
    )
    with client.opened(data) as server:
        report = server.get(*path)
        if html is not None:
            with html.open("wb") as file:
                server.stream(*path, into=file.write, format="html")
    if as_json:
        show_json(report)
    elif is_plan:
        plan_report.show(report)
    else:
        case_report.show(report)
    if not is_plan and report["verification"]["valid"] != report["verification"]["receipts"]:
        raise click.exceptions.Exit(ExitCode.FAILED)


def _shown(name: str, value: Any) -> object:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return (
            ", ".join(f"{step} {seconds * 1000:.1f} ms" for step, seconds in value.items()) or "-"
        )
    if isinstance(value, list):
        return ", ".join(" ".join(map(str, one.values())) for one in value) or "-"
    return shown_time(value) if name.endswith("_at") else value
