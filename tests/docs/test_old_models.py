"""docs/how-to/delete-models-older-than-90-days.md: its commands and its programs do what it says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.in_process import over_http
from tests.support.bulk import old_model
from tests.support.servers import Server, WithoutTorch, environment, run_cli, serving

from tunewarden.deletion.blockers import LIFTED_BY
from tunewarden.registry.criteria import ReasonCode

TEXT = (Path(__file__).parents[2] / "docs/how-to/delete-models-older-than-90-days.md").read_text(
    "utf-8"
)
COMMANDS = re.findall(r"^tunewarden .*$", TEXT, re.MULTILINE)
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("old") / "data"
    with serving(data, local_base=True, kind=WithoutTorch) as running:
        yield running


def _run(server: Server, command: str, stdin: str = "") -> str:
    ran = run_cli(*command.split()[1:], settings=over_http(server), stdin=stdin)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_one_line_deletes_what_its_preview_showed(server: Server) -> None:
    old, young = [old_model(server, 91) for _ in range(3)], old_model(server, 89)
    preview, run = COMMANDS[:2]
    shown = _run(server, preview)
    assert {line.split("\t")[1] for line in shown.splitlines() if line.startswith("delete")} == set(
        old
    )
    sentence = re.findall(r"`(delete \d+ models)`", TEXT)[0]
    _run(server, run, stdin=f"{sentence}\n")
    left = {one.id for one in server.client().models.list()}
    assert young in left
    assert not left & set(old)


@pytest.mark.parametrize("program", PROGRAMS, ids=["the loop", "one request"])
def test_a_program_deletes_what_is_old(server: Server, program: str) -> None:
    old, young = old_model(server, 91), old_model(server, 89)
    assert "http://127.0.0.1:8800/v1" in program
    ran = subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:8800/v1", server.url)],
        env=environment({}) | {"OPENAI_API_KEY": server.owner_key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert old in ran.stdout
    left = {one.id for one in server.client().models.list()}
    assert young in left
    assert old not in left


def test_the_rule_is_made_previewed_and_enabled_and_retention_acts(server: Server) -> None:
    [create] = re.findall(r"RULE=\$\((tunewarden .*)\)", TEXT)
    rule = _run(server, create).strip()
    for command in COMMANDS[2:]:
        _run(server, command.replace("$RULE", rule))
    assert f"{rule}\tenabled" in _run(server, "tunewarden retention rules list")


def test_every_reason_is_in_the_table() -> None:
    spared = {ReasonCode.TOO_YOUNG, ReasonCode.IN_USE, ReasonCode.KEEP_LATEST}
    for code in (*(one.value for one in spared), *(code for code, _ in LIFTED_BY.values())):
        assert f"`{code}`" in TEXT, code
