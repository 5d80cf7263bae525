"""docs/how-to/move-from-openai.md: after the tutorial its commands run in their order, on a server that trains."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.openai_source import OpenAI
from tests.support import migrations, servers
from tests.support.migrations import FIRST, SECOND, Moving
from tests.support.servers import LOCAL_BASE, Server

TEXT = (Path(__file__).parents[2] / "docs/how-to/move-from-openai.md").read_text("utf-8")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    data = tmp_path / "target" / "data"
    with servers.serving(data, local_base=True, kind=migrations.WithFakeTrainer) as running:
        yield running


@pytest.fixture
def source() -> Iterator[OpenAI]:
    has = migrations.acme()
    has.may_delete = True
    with openai_source.serving(has):
        yield has


def _moving(source: OpenAI, server: Server, directory: Path) -> Moving:
    """Return a migration after the tutorial."""
    moving = migrations.moving(directory, source.url, settings=over_http(server))
    for step in (["inventory"], ["download"], ["record", "--yes"]):
        ran = moving.run(*step)
        assert ran.returncode == 0, ran.stderr
    return moving


def test_its_commands_make_the_models_and_switch_and_back(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    commands = [line for line in lines if line]
    assert len(commands) == 9
    moving = _moving(source, server, tmp_path)
    asked = [{"role": "user", "content": "Hello"}]
    for command in commands:
        words = shlex.split(command.replace("my-base", LOCAL_BASE))[1:]
        assert words[-2:] == ["--data", "data"]
        given = [one for one in words[3:-2] if one not in {"--source-key-file", "openai.key"}]
        options = [*given, *(["--map", f"gpt-4.1={LOCAL_BASE}"] * ("--map" in words))]
        ran = in_process.run_cli(*moving.options(words[2], *options), settings=over_http(server))
        assert ran.returncode == 0, ran.stderr
        assert ("dry run" in ran.stderr) == ("--dry-run" in words)
        if words[2] == "switch" and "--dry-run" not in words:
            for model in (FIRST, SECOND):
                body = {"model": model, "messages": asked}
                assert server.post("/v1/chat/completions", body).status == 200
    assert not {FIRST, SECOND} & set(source.models)
    body = {"model": FIRST, "messages": asked}
    assert server.post("/v1/chat/completions", body).status == 404
