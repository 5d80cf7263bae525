"""docs/reference/commands.md names every command, every exit status, and a completion that works."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tunewarden import config
from tunewarden.cli.commands import cli
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.transport import OPENAI_HOSTS

DOCUMENT = Path(__file__).parents[2] / "docs/reference/commands.md"
TEXT = DOCUMENT.read_text("utf-8")


def _names(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_is_documented_and_no_other() -> None:
    table = TEXT.split("| --- | --- | --- |\n")[1].split("\n\n")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines()]
    assert sorted(re.findall(r"`([^`]+)`", "\n".join(rows))) == sorted(_names(cli))


def test_every_exit_status_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| ([a-z ]+) \|", TEXT, re.MULTILINE)
    named = {int(status): name.strip().replace(" ", "_").upper() for status, name in rows}
    assert named == {one.value: one.name for one in ExitCode}


def test_the_variables_and_the_hosts_that_are_refused_are_documented() -> None:
    variables = (*config.CLIENT_VARIABLES, *config.ADMIN_VARIABLES)
    for name in (*(name for names in variables for name in names), *OPENAI_HOSTS):
        assert f"`{name}`" in TEXT


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_that_is_shown_is_made(shell: str) -> None:
    asked = f"_TUNEWARDEN_COMPLETE={shell}_source"
    assert f"{asked} tunewarden" in TEXT
    made = subprocess.run(
        ["env", asked, sys.executable, "-m", "tunewarden"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_TUNEWARDEN_COMPLETE" in made.stdout, made.stderr
