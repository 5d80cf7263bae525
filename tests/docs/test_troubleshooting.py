"""docs/how-to/troubleshooting.md: its commands do what it says, and it names codes, metrics and texts that are there."""

import re
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.references import error_codes

from tunewarden.metrics.families import FAMILIES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/how-to/troubleshooting.md").read_text("utf-8")
[FIRST] = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)


def test_what_to_run_first_says_that_a_server_is_well(tmp_path: Path) -> None:
    asked, doctor = FIRST.splitlines()
    with servers.serving(tmp_path / "data", kind=servers.WithoutTorch) as server:
        url = asked.split()[-1]
        answer = server.get(url.removeprefix("http://127.0.0.1:8800"))
        assert (answer.status, answer.json["status"]) == (200, "ok")
        ran = servers.run_cli(*doctor.replace(" data", f" {tmp_path}/data").split()[1:])
    assert "ok" in ran.stdout
    assert {line.split()[0] for line in ran.stdout.splitlines()} <= {"ok", "wait", "FAIL"}


def test_every_code_that_it_names_is_one() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    named -= {one.name for one in FAMILIES} | {"request_id"}
    assert named
    assert named <= error_codes.statuses().keys()


@pytest.mark.parametrize(
    "text",
    [
        one
        for one in re.findall(r"^\| ([A-Za-z][^|`]+?) \| .* \| .* \|$", TEXT, re.MULTILINE)
        if one != "it says"
    ],
)
def test_every_text_that_a_start_says_is_in_the_source(text: str) -> None:
    source = "\n".join(path.read_text("utf-8") for path in ROOT.glob("src/**/*.py"))
    for part in text.split(" … "):
        assert part in source
