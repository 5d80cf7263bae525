"""docs/tutorials/moving-from-openai.md: its commands run, and its dates are the ones that the inventory has."""

import re
import shlex
from pathlib import Path

from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.support import migrations
from tests.support.servers import Server

from tunewarden.migration import answers, deadlines, download

TEXT = (Path(__file__).parents[2] / "docs/tutorials/moving-from-openai.md").read_text("utf-8")
KEY_FILE = "openai.key"


def test_its_commands_save_everything_in_their_order(server: Server, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    commands = [
        line for block in blocks for line in block.splitlines() if " migrate openai " in line
    ]
    assert len(commands) == 4
    with openai_source.serving(migrations.acme()) as source:
        moving = migrations.moving(tmp_path, source.url)
        for command in commands:
            words = shlex.split(command)[1:]
            assert words[:4] == ["migrate", "openai", words[2], "--source-key-file"]
            assert words[4] == KEY_FILE
            asked = [one for one in words[5:] if one not in {"--data", "data"}]
            ran = in_process.run_cli(*moving.options(words[2], *asked), settings=over_http(server))
            assert ran.returncode == 0, ran.stderr
        assert len(source.answered) == 15
    assert len(migrations.answers(server, moving)) == 15


def test_its_figures_are_the_codes() -> None:
    assert f"| {deadlines.LAST_NEW_JOB} | new fine-tuning jobs |" in TEXT
    for family, day in deadlines.SHUTDOWNS.items():
        (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| {day}")]
        assert f"`{family}`" in row
    assert f"({download.PART_BYTES >> 20} MiB)" in TEXT
    minutes = answers.OPEN_SECONDS_MAX / 60
    assert f"after {minutes:.0f} minutes, {answers.ANSWERS_MAX} answers" in TEXT
