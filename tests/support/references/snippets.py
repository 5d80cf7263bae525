"""Blocks of code in the documents, and the list of what runs each: tests/golden/snippets.txt."""

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tunewarden.cli.commands import cli

ROOT = Path(__file__).parents[3]
LIST = ROOT / "tests/golden/snippets.txt"
# Decisions tell what was tried once; what is generated shows usage, and is held by its own test.
LEFT_OUT = ("docs/decisions/", "docs/reference/command-options.md")
BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^[ \t]*|\$\(|&& )tunewarden (.*)$", re.MULTILINE)


class Snippet(NamedTuple):
    """A block of code: its page, its number there from 1, what stands after the fence, and its text."""

    page: str
    number: int
    info: str
    code: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def key(self) -> tuple[str, int]:
        return self.page, self.number

    @property
    def name(self) -> str:
        return f"{self.page} {self.number}"


def snippets() -> list[Snippet]:
    """Return every block of every page."""
    patterns = ("*.md", "docs/**/*.md", "packages/*/*.md")
    pages = sorted(path.relative_to(ROOT).as_posix() for one in patterns for path in ROOT.glob(one))
    return [
        Snippet(page, number, found[2].strip(), textwrap.dedent(found[3]))
        for page in pages
        if not page.startswith(LEFT_OUT)
        for number, found in enumerate(BLOCK.finditer((ROOT / page).read_text("utf-8")), 1)
    ]


def listed() -> dict[tuple[str, int], str]:
    """Return what runs each block, or why nothing does, by page and number."""
    found: dict[tuple[str, int], str] = {}
    for line in LIST.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            page, numbers, how = line.split(" | ")
            for part in numbers.split(","):
                first, _, last = part.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    assert (page, number) not in found, line
                    found[page, number] = how
    return found


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each `tunewarden` command in a block of shell."""
    for line in COMMAND.findall(code.replace("\\\n", " ")):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        yield list(itertools.takewhile(lambda word: word[0] not in "|&;()<>", words))


def unknown(words: list[str]) -> str | None:
    """Return what click does not know of a command: a part of its name, or an option."""
    found: click.Command = cli
    rest = list(words)
    while isinstance(found, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        inner = found.get_command(click.Context(found), name)
        if inner is None:
            return name
        found = inner
    options = {
        one
        for parameter in found.get_params(click.Context(found))
        for one in (*parameter.opts, *parameter.secondary_opts)
    }
    given = [one.partition("=")[0] for one in rest if re.match(r"--?[a-z]", one)]
    return next((one for one in given if one not in options), None)
