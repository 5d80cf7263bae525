"""docs/reference/command-options.md: every command with its options, as click has them."""

from collections.abc import Iterator

import click
from tests.support.references import pages

from tunewarden.cli.commands import cli

# Every command has it.
HELP = "--help"


def markdown() -> str:
    """Return the generated part of the page."""
    return "".join(_group(cli, ()))


def _group(group: click.Group, names: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if len(names) == 0:
            yield f"## {name}\n\n"
        if isinstance(command, click.Group):
            yield from _group(command, (*names, name))
        else:
            yield from _command(command, (*names, name))


def _command(command: click.Command, names: tuple[str, ...]) -> Iterator[str]:
    context = click.Context(command, info_name=" ".join(("tunewarden", *names)))
    usage = " ".join(command.collect_usage_pieces(context))
    said = " ".join((command.help or "").partition("\b")[0].split())
    if len(names) > 1:
        yield f"### {' '.join(names)}\n\n"
    yield f"```text\n{context.info_name} {usage}\n```\n\n{pages.wrapped(said)}\n\n"
    rows = [
        record
        for one in command.get_params(context)
        if (record := one.get_help_record(context)) and record[0] != HELP and record[1]
    ]
    if rows:
        yield "| option | meaning |\n|---|---|\n"
        for option, meaning in rows:
            yield _row(option, meaning)
        yield "\n"


def _row(option: str, meaning: str) -> str:
    cells = (f"`{option}`", " ".join(meaning.split()))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
