"""Commands about API keys: of a project with an admin key, of all organizations on the server's machine."""

from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli import client, local_keys, people, project_keys
from tunewarden.cli.client import Object
from tunewarden.cli.confirmation import was_dry_run
from tunewarden.cli.durations import Duration, expires_option
from tunewarden.cli.new_keys import show_key
from tunewarden.cli.options import (
    administering_option,
    choose_organization,
    chosen_organization,
    data_option,
    dry_run_option,
    json_option,
    limit_option,
    refusing,
)
from tunewarden.cli.output import listing, say_if_more, show_json, show_table, shown_time

GRACE_SECONDS = 24 * 3600
project_option = click.option(
    "--project",
    help="Of this project, with an admin key. [default: of all, on the server's machine]",
)


@click.group()
def keys() -> None:
    """API keys: of a project with --project and an admin key; else of every organization, on the server's machine."""


@keys.command(
    "create",
    epilog="\b\nExamples:\n  tunewarden keys create --role reader --name ci"
    "\n  tunewarden keys create --project proj_… --user ada@example.com --expires 90d",
)
@click.option(
    "--role",
    type=click.Choice(["owner", "member", "reader"]),
    help="The role of a user who is made with it: an Owner of the organization, or a member or reader of the default"
    " project.",
)
@click.option("--user", help="A person in --project, by id or address.")
@project_option
@click.option("--name", default="key", help="For people.")
@click.option(
    "--organization",
    callback=choose_organization,
    help="With --role: created if it is new. With --project: the one to administer, on the server's machine. [default: the"
    " first one]",
)
@click.option("--scope", "scopes", multiple=True, help="Restrict the key; repeatable.")
@expires_option
@json_option
@data_option
@refusing
def keys_create(  # noqa: PLR0917  click passes each by name
    role: str | None,
    user: str | None,
    project: str | None,
    name: str,
    organization: str | None,
    scopes: tuple[str, ...],
    expires: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Create a key and print it; it cannot be shown again.

    Either with --role, on the server's machine, or with --project and --user.
    """
    if (role is None) is (project is None) or (project is None) is not (user is None):
        raise click.UsageError("Give either --role, or --project and --user.")
    if project is not None and user is not None:
        fields = {"name": name, "scopes": list(scopes), "expires_in_seconds": expires}
        with client.administering(data) as server:
            made = project_keys.create(server, project, people.id_of(server, user), **fields)
        show_key(made, made["value"], user, as_json=as_json)
        return
    assert role is not None, "checked above"
    settings = config.of_this_machine(data)
    key = local_keys.create(
        settings, organization=organization, role=role, name=name, scopes=scopes, expires=expires
    )
    _show_new(settings, key, f"{role} in {key['organization']}", as_json=as_json)


@keys.command("list")
@project_option
@limit_option
@json_option
@administering_option
@refusing
def keys_list(project: str | None, limit: int | None, data: Path | None, *, as_json: bool) -> None:
    """List keys: id, name, role, organization, scopes, state; with --project also whose and when it was last used."""
    _check_organization(project)
    if project is not None:
        with client.administering(data) as server:
            some = project_keys.pages(server, project, limit)
        if as_json:
            show_json(some)
            return
        show_table(project_keys.FIELDS, map(project_keys.row, some["data"]))
        say_if_more(some)
        return
    found = local_keys.list_all(config.of_this_machine(data))
    found = found if limit is None else found[-limit:]
    if as_json:
        show_json(listing(found))
        return
    for key in found:
        click.echo(_line(key))


@keys.command(
    "update",
    epilog="\b\nExample:\n  tunewarden keys update key_… --project proj_… --scope api.model.read --expires 30d",
)
@click.argument("key_id")
@click.option("--project", required=True, help="The key's project.")
@click.option("--scope", "scopes", multiple=True, help="Restrict the key to these; repeatable.")
@click.option("--unrestricted", is_flag=True, help="Let the key do all that its user may.")
@click.option("--expires", type=Duration(), help="For how long it is valid from now on: 24h, 30d.")
@json_option
@administering_option
@refusing
def keys_update(
    key_id: str,
    project: str,
    scopes: tuple[str, ...],
    expires: int | None,
    data: Path | None,
    *,
    unrestricted: bool,
    as_json: bool,
) -> None:
    """Give a key other scopes, or another expiry, with an admin key: from the next request on.

    What is not named stays as it is.
    """
    if scopes and unrestricted:
        raise click.UsageError("Use --scope or --unrestricted, not both.")
    if not scopes and not unrestricted and expires is None:
        raise click.UsageError("Give --scope, --unrestricted or --expires.")
    fields: Object = {} if expires is None else {"expires_in_seconds": expires}
    if scopes or unrestricted:
        fields["scopes"] = list(scopes)
    with client.administering(data) as server:
        changed = server.post(*project_keys.path(project), key_id, fields=fields)
    if as_json:
        show_json(changed)
    else:
        show_table(project_keys.FIELDS, [project_keys.row(changed)])


@keys.command(
    "rotate", epilog="\b\nExample:\n  tunewarden keys rotate key_… --project proj_… --grace 1h"
)
@click.argument("key_id")
@project_option
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the old key stays valid, if it does not expire sooner.",
)
@expires_option
@dry_run_option
@json_option
@administering_option
@refusing
def keys_rotate(
    key_id: str,
    project: str | None,
    grace: int,
    expires: int | None,
    data: Path | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create a key with the user, name, scopes and rate limit of another one, and print it; the old one expires.

    The new key lives for --expires, without it as long as the old one was made for.
    """
    _check_organization(project)
    if dry_run:
        _show_old(key_id, project, data, as_json=as_json)
        was_dry_run("rotated")
        return
    if project is not None:
        with client.administering(data) as server:
            made = project_keys.rotate(server, project, key_id, grace=grace, expires=expires)
        show_key(made, made["value"], f"{key_id}'s user", as_json=as_json)
    else:
        settings = config.of_this_machine(data)
        made = local_keys.rotate(settings, key_id, grace=grace, expires=expires)
        _show_new(settings, made, f"{key_id}'s user", as_json=as_json)
    if not as_json:
        end = shown_time(made["rotated"]["expires_at"])
        click.echo(f"{key_id} expires at {end}.", err=True)


@keys.command("revoke", epilog="\b\nExample:\n  tunewarden keys revoke key_…")
@click.argument("key_id")
@project_option
@dry_run_option
@json_option
@administering_option
@refusing
def keys_revoke(
    key_id: str, project: str | None, data: Path | None, *, dry_run: bool, as_json: bool
) -> None:
    """Revoke a key immediately and permanently."""
    _check_organization(project)
    if dry_run:
        _show_old(key_id, project, data, as_json=as_json)
        was_dry_run("revoked")
        return
    if project is not None:
        with client.administering(data) as server:
            revoked = server.delete(*project_keys.path(project), key_id)
    else:
        settings = config.of_this_machine(data)
        local_keys.revoke(settings, key_id)
        revoked = local_keys.find(settings, key_id)
    if as_json:
        show_json(revoked)
    else:
        click.echo(key_id)


def _check_organization(project: str | None) -> None:
    """Refuse --organization without --project: the operator's commands see the keys of all of them."""
    if project is None and chosen_organization() is not None:
        raise click.UsageError("--organization goes with --project.")


def _show_new(settings: config.Config, key: Object, whose: str, *, as_json: bool) -> None:
    try:
        show_key(key, key["value"], whose, as_json=as_json)
    except OSError:
        local_keys.revoke(settings, key["id"])  # nobody has seen it
        raise


def _show_old(key_id: str, project: str | None, data: Path | None, *, as_json: bool) -> None:
    if project is None:
        key = local_keys.find(config.of_this_machine(data), key_id)
        shown = _line(key)
    else:
        with client.administering(data) as server:
            key = server.get(*project_keys.path(project), key_id)
        shown = "\t".join(project_keys.row(key))
    if as_json:
        show_json(key)
    else:
        click.echo(shown)


def _line(key: Object) -> str:
    scopes = " ".join(key["scopes"]) or "unrestricted"
    return "\t".join(
        (key["id"], key["name"], key["role"], key["organization"], scopes, key["state"])
    )
