"""Commands about rate limits of projects and of API keys, and about quotas of projects."""

from pathlib import Path

import click

from tunewarden.cli import client
from tunewarden.cli.client import ADMINISTRATION_PAGE_SIZE, Object
from tunewarden.cli.options import administering_option, json_option, limit_option, refusing
from tunewarden.cli.output import say_if_more, show_json, show_table

PROJECT = click.argument("project_id")
# On the wire, where a number is needed.
NO_LIMIT = 2**31 - 1
REQUESTS, TOKENS = "max_requests_per_1_minute", "max_tokens_per_1_minute"
QUOTAS = ("bytes", "files", "models")


class Rate(click.ParamType[int]):
    """A number a minute, or none."""

    name = "number|none"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the number; that of no limit for "none"."""
        if value == "none":
            return NO_LIMIT
        number = click.IntRange(1, NO_LIMIT)(value, param, ctx)
        assert number is not None, "an option that is not given is not converted"
        return number


REQUESTS_OPTION = click.option("--requests", type=Rate(), help="Requests a minute.")
TOKENS_OPTION = click.option("--tokens", type=Rate(), help="Tokens a minute.")


@click.group("limits")
def project_limits() -> None:
    """What a project may send to a base, and an API key to all, in a minute."""


@project_limits.command("list")
@PROJECT
@limit_option
@json_option
@administering_option
@refusing
def project_limits_list(
    project_id: str, limit: int | None, data: Path | None, *, as_json: bool
) -> None:
    """List the rate limits of a project, one of each base: base, requests, tokens a minute."""
    with client.administering(data) as server:
        found = server.pages(
            *_path(project_id), "rate_limits", limit=limit, page_size=ADMINISTRATION_PAGE_SIZE
        )
    if as_json:
        show_json(found)
        return
    rows = ((one["model"], *_rates(one)) for one in found["data"])
    show_table(("base", "requests", "tokens"), rows)
    say_if_more(found)


@project_limits.command(
    "set", epilog="\b\nExample:\n  tunewarden projects limits set proj_… demo --requests 600"
)
@PROJECT
@click.argument("base")
@REQUESTS_OPTION
@TOKENS_OPTION
@json_option
@administering_option
@refusing
def project_limits_set(
    project_id: str,
    base: str,
    requests: int | None,
    tokens: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Set what a project may send to a base in a minute, its fine-tunes included."""
    with client.administering(data) as server:
        path = (*_path(project_id), "rate_limits", f"rl-{base}")
        found = server.post(*path, fields=_change(requests, tokens))
    _say(found, base, as_json=as_json)


@project_limits.command("set-key")
@PROJECT
@click.argument("key_id")
@REQUESTS_OPTION
@TOKENS_OPTION
@json_option
@administering_option
@refusing
def project_limits_set_key(
    project_id: str,
    key_id: str,
    requests: int | None,
    tokens: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Set what an API key may send in a minute, to all models; without an option, show it."""
    path = (*_path(project_id), "api_keys", key_id, "rate_limit")
    change = _change(requests, tokens)
    with client.administering(data) as server:
        found = server.post(*path, fields=change) if change else server.get(*path)
    _say(found, key_id, as_json=as_json)


@click.command("quota")
@PROJECT
@click.option("--bytes", "bytes_max", type=int, help="Sealed bytes, unfinished uploads included.")
@click.option("--files", "files_max", type=int, help="Files.")
@click.option("--models", "models_max", type=int, help="Models, checkpoints included.")
@json_option
@administering_option
@refusing
def project_quota(
    project_id: str,
    bytes_max: int | None,
    files_max: int | None,
    models_max: int | None,
    data: Path | None,
    *,
    as_json: bool,
) -> None:
    """Set what a project may have; without an option, show what it may have, and has."""
    given = zip(QUOTAS, (bytes_max, files_max, models_max), strict=True)
    fields = {f"max_{name}": number for name, number in given if number is not None}
    path = (*_path(project_id), "quota")
    with client.administering(data) as server:
        found = server.post(*path, fields=fields) if fields else server.get(*path)
    if as_json:
        show_json(found)
        return
    rows = ((name, found[f"used_{name}"], found[f"max_{name}"]) for name in QUOTAS)
    show_table(("what", "used", "most"), rows)


def _path(project_id: str) -> tuple[str, str, str]:
    return "organization", "projects", project_id


def _change(requests: int | None, tokens: int | None) -> Object:
    given = {REQUESTS: requests, TOKENS: tokens}
    return {name: number for name, number in given.items() if number is not None}


def _rates(found: Object) -> tuple[object, object]:
    requests, tokens = (
        "none" if found[name] == NO_LIMIT else found[name] for name in (REQUESTS, TOKENS)
    )
    return requests, tokens


def _say(found: Object, subject: str, *, as_json: bool) -> None:
    if as_json:
        show_json(found)
    else:
        show_table(("for", "requests", "tokens"), [(subject, *_rates(found))])
