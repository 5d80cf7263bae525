"""Answers in lines of JSON, one result a line and a summary last, as commands read and show them."""

import json
from collections.abc import Callable, Mapping

import click

from tunewarden.cli.client import Client, Object, Value
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.output import plain, show_json, shown_time
from tunewarden.errors import Error, Kind

SUMMARY = "deletion.summary"


def read(
    server: Client,
    method: str,
    *path: str,
    each: Callable[[Object], None],
    fields: Object | None = None,
    headers: Mapping[str, str] | None = None,
    **query: Value,
) -> Object:
    """Send a request; call `each` for each result as it comes; return the summary. Raises Error."""
    reader = _Reader(each)
    server.lines(method, *path, into=reader.add, fields=fields, headers=headers, **query)
    if reader.summary is None:
        raise Error(Kind.UNAVAILABLE, "The answer broke off.")
    return reader.summary


class _Reader:
    def __init__(self, each: Callable[[Object], None]) -> None:
        self._each = each
        self._left = b""
        self.summary: Object | None = None

    def add(self, piece: bytes) -> None:
        """Read what has come."""
        *lines, self._left = (self._left + piece).split(b"\n")
        for line in lines:
            one: Object = json.loads(line)
            if one["object"] == SUMMARY:
                self.summary = one
            else:
                self._each(one)


def show(result: Object, *, as_json: bool, to_stderr: bool = False) -> None:
    """Print a result: outcome, model or file, and the deletion or the reasons and what goes with it."""
    if as_json:
        show_json(result, is_line=True)
        return
    row = (result["outcome"], result.get("model") or result["file"], _said(result))
    click.echo("\t".join(plain(value) for value in row), err=to_stderr)


def _said(result: Object) -> str:
    said: list[str] = [why["message"] for why in result["reasons"]]
    if "deletion" in result:
        said = [result["deletion"]]
    if "due_at" in result:
        said.append(f"Due {shown_time(result['due_at'])}.")
    if result.get("checkpoints"):
        said.append(f"With its checkpoints: {', '.join(result['checkpoints'])}.")
    return " ".join(said)


def end(summary: Object, *, as_json: bool) -> None:
    """Print the summary; exit like the error that stopped the rest, if one did."""
    if as_json:
        show_json(summary, is_line=True)
    else:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in summary["counts"].items())
        click.echo(f"{counts or 'nothing'}.", err=True)
        if summary["has_more"]:
            click.echo("There are more. Run the same again.", err=True)
    stopped = summary["stopped"]
    if stopped is not None:
        click.echo(f"Error: {plain(stopped['message'])} {summary['left']} are left.", err=True)
        is_ours = stopped["type"] == "server_error"
        raise click.exceptions.Exit(ExitCode.UNAVAILABLE if is_ours else ExitCode.REFUSED)
