"""Output of commands: tables and lines for people, lines for scripts, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import click


def shown_time(seconds: float) -> str:
    """Format a time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def plain(text: object) -> str:
    """Return text for a terminal, with control characters replaced by question marks."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(text))


def line(name: str, text: object) -> None:
    """Print what a name stands for."""
    click.echo(f"{name}: {plain(text)}")


def show_table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: in columns with headings on a terminal, else tab-separated."""
    shown = ([plain(value) for value in row] for row in rows)
    if not sys.stdout.isatty():
        for row in shown:
            click.echo("\t".join(row))
        return
    table = [[name.upper() for name in names], *shown]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        padded = [value.ljust(width) for value, width in zip(row, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())


def show_json(value: Mapping[str, object], *, is_line: bool = False) -> None:
    """Print an object as ASCII JSON (no control characters): on one line, but indented on a terminal unless `is_line`."""
    indent = 2 if sys.stdout.isatty() and not is_line else None
    click.echo(json.dumps(value, indent=indent))


def say_if_more(found: Mapping[str, object]) -> None:
    """Say on standard error that a list object is incomplete."""
    if found["has_more"]:
        click.echo("There are more. Raise --limit, or omit it to list all.", err=True)


def listing(objects: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Return the API's list object for local data; always complete."""
    return {"object": "list", "data": list(objects), "has_more": False}
