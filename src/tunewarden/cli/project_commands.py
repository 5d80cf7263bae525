"""Commands about projects."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.confirmation import confirm, was_dry_run
from tunewarden.cli.options import (
    administering_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
    yes_option,
)
from tunewarden.cli.output import plain, say_if_more, show_json, show_table
from tunewarden.cli.project_limit_commands import project_limits, project_quota
from tunewarden.cli.project_user_commands import project_users

FIELDS = ("id", "name", "status")


@click.group()
def projects() -> None:
    """Projects, and who is in them."""


projects.add_command(project_users)
projects.add_command(project_limits)
projects.add_command(project_quota)


@projects.command("list")
@click.option("--archived", is_flag=True, help="Show archived projects too.")
@limit_option
@json_option
@administering_option
@refusing
def projects_list(limit: int | None, data: Path | None, *, archived: bool, as_json: bool) -> None:
    """List projects, newest first: id, name, status."""
    with client.administering(data) as server:
        found = server.pages(
            "organization",
            "projects",
            limit=limit,
            page_size=ADMINISTRATION_PAGE_SIZE,
            include_archived=str(archived).lower(),
        )
    if as_json:
        show_json(found)
        return
    show_table(FIELDS, ([one[name] for name in FIELDS] for one in found["data"]))
    say_if_more(found)


@projects.command("create", epilog="\b\nExample:\n  tunewarden projects create support")
@click.argument("name")
@json_option
@administering_option
@refusing
def projects_create(name: str, data: Path | None, *, as_json: bool) -> None:
    """Create a project and print its id."""
    with client.administering(data) as server:
        made = server.post("organization", "projects", fields={"name": name})
    _say(made, as_json=as_json)


@projects.command("rename")
@click.argument("project_id")
@click.argument("name")
@json_option
@administering_option
@refusing
def projects_rename(project_id: str, name: str, data: Path | None, *, as_json: bool) -> None:
    """Give a project another name."""
    with client.administering(data) as server:
        changed = server.post("organization", "projects", project_id, fields={"name": name})
    _say(changed, as_json=as_json)


@projects.command("archive", epilog="\b\nExample:\n  tunewarden projects archive proj_… --dry-run")
@click.argument("project_id")
@yes_option
@dry_run_option
@json_option
@administering_option
@refusing
def projects_archive(
    project_id: str, data: Path | None, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Archive a project for good: from then on its keys are refused.

    Its files must be deleted before, its uploads and jobs ended. Its models stay the organization's.
    """
    with client.administering(data) as server:
        project = server.get("organization", "projects", project_id)
        if dry_run:
            if as_json:
                show_json(project)
            else:
                for name in FIELDS:
                    click.echo(f"{name}: {plain(project[name])}")
            was_dry_run("archived")
            return
        if not yes:
            confirm(
                f"This archives {plain(project['name'])}: its keys will be refused.", project["id"]
            )
        archived = server.post("organization", "projects", project_id, "archive")
    _say(archived, as_json=as_json)


def _say(project: Object, *, as_json: bool) -> None:
    if as_json:
        show_json(project)
    else:
        click.echo(project["id"])
