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
    """What is blocked stays, and does not keep the rest: an alias's model, a held and a protected one."""
    client = server.client()
    spared = [old_model(server, 92) for _ in range(3)]
    old, young = old_model(server, 91), old_model(server, 89)
    last = old_model(server, 93)
    _point_alias(server, spared[0])
    hold = {"model": spared[1], "reason": "a case"}
    held = client.post("/holds", body=hold, cast_to=dict[str, object])
    client.post(f"/models/{spared[2]}", body={"protected": True}, cast_to=object)
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
    assert all(one in ran.stdout for one in spared), "it says what it kept"
    left = {one.id for one in client.models.list()}
    assert left >= {young, *spared}
    assert not left & {old, last}
    client.post(f"/holds/{held['id']}/lift", cast_to=object)
    client.delete("/aliases/production", cast_to=object)
    for one in spared:
        assert client.models.delete(one, extra_query={"force": True}).deleted


def _point_alias(server: Server, model: str) -> None:
    body = {"name": "production", "model": model}
    made = server.client().post("/aliases", body=body, cast_to=dict[str, object])
    assert made["name"] == "production"


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
