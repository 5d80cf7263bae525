"""Every block of code in the documents is run by a test, or says why not; and each is what its language and click take.

The list is tests/golden/snippets.txt. A new block needs a line there.
"""

import ast
import json
import re
import subprocess
import tomllib
from collections import Counter

import pytest
from tests.support.references import snippets
from tests.support.references.snippets import ROOT, Snippet

from tunewarden.config import SETTINGS

ALL = snippets.snippets()
HOW = snippets.listed()


def _of(*languages: str) -> pytest.MarkDecorator:
    found = [one for one in ALL if one.language in languages]
    assert found
    return pytest.mark.parametrize("snippet", found, ids=lambda one: one.name)


def test_every_block_is_listed_and_each_that_is_listed_is_there() -> None:
    assert [one.key for one in ALL if one.key not in HOW] == []
    assert [key for key in HOW if key not in {one.key for one in ALL}] == []


def test_the_test_that_is_named_reads_the_page() -> None:
    for (page, number), how in HOW.items():
        kind, _, rest = how.partition(" ")
        if kind in {"run", "held"}:
            text = (ROOT / rest).read_text("utf-8")
            # Pages of clients are read as a folder, and this test reads all pages.
            names = (page.rpartition("/")[2], "PAGES.glob", "snippets.snippets")
            assert any(name in text for name in names), (page, number)
        else:
            assert how.startswith("not run: "), how
            assert len(how) > len("not run: ")


def test_the_head_of_the_list_counts() -> None:
    counts = Counter(how.partition(" ")[0] for how in HOW.values())
    said = f"# run {counts['run']}, held {counts['held']}, not run {counts['not']}\n"
    assert said in snippets.LIST.read_text("utf-8")


@_of("sh")
def test_shell_is_shell_and_its_commands_and_options_are_there(snippet: Snippet) -> None:
    read = subprocess.run(
        ["bash", "-n"], input=snippet.code, text=True, capture_output=True, check=False
    )
    assert read.returncode == 0, read.stderr
    for words in snippets.commands(snippet.code):
        assert snippets.unknown(words) is None, words


@_of("python")
def test_python_is_python(snippet: Snippet) -> None:
    ast.parse(snippet.code)


@_of("json")
def test_json_is_json(snippet: Snippet) -> None:
    json.loads(snippet.code)


@_of("toml")
def test_toml_has_settings(snippet: Snippet) -> None:
    for name, value in tomllib.loads(snippet.code).items():
        SETTINGS[name].read(value)


def test_control_a_command_that_is_not_there_is_found() -> None:
    code = "X=$(tunewarden models delete ft:a --dry-run) # a\ntunewarden models remove ft:a | cat\n"
    first, second = snippets.commands(code)
    assert first == ["models", "delete", "ft:a", "--dry-run"]
    assert snippets.unknown(first) is None
    assert snippets.unknown(second) == "remove"
    assert snippets.unknown(["models", "delete", "--gone=1"]) == "--gone"


def test_control_fences_are_counted_as_renderers_do() -> None:
    for page in {one.page for one in ALL}:
        fences = re.findall(r"^ *```", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * sum(one.page == page for one in ALL), page
