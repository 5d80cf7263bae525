"""Commands about retention rules."""

from pathlib import Path

import click

from tunewarden.cli import bulk_deleting, client
from tunewarden.cli.bulk_deleting import filter_options
from tunewarden.cli.client import Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.options import data_option, dry_run_option, json_option, limit_option, refusing
from tunewarden.cli.output import say_if_more, show_json, show_table, shown_time

CRITERIA = {
    "base": "base",
    "suffix": "suffix",
    "project": "project",
    "older_than_days": "older than {} days",
    "unused_for_days": "unused for {} days",
    "keep_latest": "but the latest {}",
}


@click.group()
def rules() -> None:
    """What is archived or deleted by itself. A new rule does nothing until it is enabled."""


@rules.command(
    "create",
    epilog="\b\nExample:\n  tunewarden retention rules create --older-than 90d --unused-for 30d",
)
@filter_options
@click.option("--archive", is_flag=True, help="Archive instead of deleting; it can be undone.")
@click.option("--notice", "notice_days", type=click.IntRange(min=0), help="Days before a deletion.")
@click.option("--enable", is_flag=True, help="Let it act at once, without a look at its preview.")
@json_option
@data_option
@refusing
def rules_create(
    notice_days: int | None,
    data: Path | None,
    *,
    archive: bool,
    enable: bool,
    as_json: bool,
    **chosen: object,
) -> None:
    """Create a rule; print its id. It deletes, and announces that 7 days before, unless told otherwise."""
    fields = bulk_deleting.chosen(**chosen, notice_days=notice_days)
    fields |= {"action": "archive" if archive else "delete", "enabled": enable}
    with client.opened(data) as server:
        made = server.post("retention", "rules", fields=fields)
    _show(made, as_json=as_json)
    if not enable:
        said = (
            f"It does nothing yet: see `tunewarden retention preview {made['id']}`, then enable it."
        )
        click.echo(said, err=True)


@rules.command(
    "change", epilog="\b\nExample:\n  tunewarden retention rules change rule_… --notice 14"
)
@click.argument("rule_id")
@filter_options
@click.option("--notice", "notice_days", type=click.IntRange(min=0), help="Days before a deletion.")
@json_option
@data_option
@refusing
def rules_change(
    rule_id: str,
    notice_days: int | None,
    data: Path | None,
    *,
    as_json: bool,
    **chosen: object,
) -> None:
    """Change what is given of a rule; what it announced before is void."""
    fields = bulk_deleting.chosen(**chosen, notice_days=notice_days)
    if not fields:
        raise click.UsageError("Give what to change.")
    _change(rule_id, fields, data, as_json=as_json)


def _switch_command(name: str, said: str, *, is_enabled: bool) -> None:
    """Add a command that lets a rule act or not."""

    @rules.command(name, help=said)
    @click.argument("rule_id")
    @json_option
    @data_option
    @refusing
    def switch(rule_id: str, data: Path | None, *, as_json: bool) -> None:
        _change(rule_id, {"enabled": is_enabled}, data, as_json=as_json)


_switch_command("enable", "Let a rule act, each hour.", is_enabled=True)
_switch_command("disable", "Let a rule do nothing.", is_enabled=False)


@rules.command("list")
@limit_option
@json_option
@data_option
@refusing
def rules_list(limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List rules: id, enabled or not, action, what it chooses, last run."""
    with client.opened(data) as server:
        found = server.pages("retention", "rules", limit=limit)
    say_if_more(found)
    if as_json:
        show_json(found)
        return
    names = ("id", "state", "action", "chooses", "last run")
    show_table(names, [_row(one) for one in found["data"]])


@rules.command("show")
@click.argument("rule_id")
@json_option
@data_option
@refusing
def rules_show(rule_id: str, data: Path | None, *, as_json: bool) -> None:
    """Show one rule."""
    with client.opened(data) as server:
        rule = server.get("retention", "rules", rule_id)
    if as_json:
        show_json(rule)
        return
    for name, value in rule.items():
        shown = "-" if value is None else shown_time(value) if name.endswith("_at") else value
        click.echo(f"{name}: {shown}")


@rules.command("delete")
@click.argument("rule_id")
@dry_run_option
@json_option
@data_option
@refusing
def rules_delete(rule_id: str, data: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Delete a rule; no model."""
    with client.opened(data) as server:
        rule = server.get("retention", "rules", rule_id)
        if not dry_run:
            server.delete("retention", "rules", rule_id)
    _show(rule, as_json=as_json)
    if dry_run:
        was_dry_run("deleted")


def _change(rule_id: str, fields: Object, data: Path | None, *, as_json: bool) -> None:
    with client.opened(data) as server:
        rule = server.post("retention", "rules", rule_id, fields=fields)
    _show(rule, as_json=as_json)


def _show(rule: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(rule)
    else:
        click.echo(rule["id"])


def _row(rule: Object) -> tuple[object, ...]:
    given = ((text, rule[name]) for name, text in CRITERIA.items() if rule[name] is not None)
    chosen = ", ".join(
        text.format(value) if "{}" in text else f"{text} {value}" for text, value in given
    )
    notice = f", announced {rule['notice_days']} days before" if rule["notice_days"] else ""
    last = "never" if rule["last_run_at"] is None else shown_time(rule["last_run_at"])
    state = "enabled" if rule["enabled"] else "disabled"
    return rule["id"], state, f"{rule['action']}{notice}", chosen, last
