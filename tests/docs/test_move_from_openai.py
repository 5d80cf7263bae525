"""docs/how-to/move-from-openai.md: after the tutorial its commands run in their order, on a server that trains."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError
from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.openai_source import KEY, OpenAI
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
        ran = in_process.run_cli(*moving.options(words[2], *given), settings=over_http(server))
        assert ran.returncode == 0, ran.stderr
        assert ("dry run" in ran.stderr) == ("--dry-run" in words)
        if words[2] == "switch" and "--dry-run" not in words:
            for model in (FIRST, SECOND):
                body = {"model": model, "messages": asked}
                assert server.post("/v1/chat/completions", body).status == 200
            _ask_both_sides(source, server)
    assert not {FIRST, SECOND} & set(source.models)
    body = {"model": FIRST, "messages": asked}
    assert server.post("/v1/chat/completions", body).status == 404


def _ask_both_sides(source: OpenAI, server: Server) -> None:
    """Run the document's program: who is asked for which user, and where one side fails."""
    (code,) = re.findall(r"^ +```python both\n(.*?)^ +```$", TEXT, re.MULTILINE | re.DOTALL)
    environment = over_http(server) | {"OLD_BASE_URL": source.url, "OLD_API_KEY": KEY}
    users = [f"user-{number}" for number in range(20)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        run: dict[str, Any] = {}
        exec(textwrap.dedent(code), run)

        def sides(percent: int) -> list[bool]:
            """Return for each user whether the answer came from the source."""
            patch.setenv("PERCENT_HERE", str(percent))
            asked = {"model": FIRST, "messages": [{"role": "user", "content": "Hello"}]}
            answers = [run["chat"](user, **asked) for user in users]
            return [one.choices[0].message.content == f"{FIRST} answers Hello" for one in answers]

        assert sides(0) == [True] * 20
        assert sides(100) == [False] * 20
        some = sides(50)
        assert {*some} == {True, False}
        assert sides(50) == some, "a user stays on one side"
        patch.setenv("PERCENT_HERE", "100")
        source.models.append("ft:deleted-here")
        with pytest.raises(NotFoundError):
            run["chat"]("somebody", model="ft:deleted-here", messages=[])
        source.models.remove("ft:deleted-here")
        source.models.remove(FIRST)
        assert sides(0) == [False] * 20, "it stopped answering there"
        source.models.append(FIRST)
        run["here"] = run["here"].with_options(base_url="http://127.0.0.1:9/v1", max_retries=0)
        assert sides(100) == [True] * 20, "this server does not answer"
