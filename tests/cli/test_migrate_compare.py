"""`migrate openai compare`: recorded answers beside those of the model that was made again, in sealed files."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.test_killed_migrations import Killer
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI
from tests.support import migrations
from tests.support.migrations import ANSWER_CANARY, BASE, PROMPT_CANARY, Moving, chats
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode

STRIDE = 1 if os.environ.get("TUNEWARDEN_TORTURE") else 7
COUNT = 6
# So says the stand-in of the engine.
HERE = "x" * 8


def _recorded(server: Server, directory: Path) -> tuple[Moving, str, str]:
    """Return a migration whose one model has answers and was made again, its old id, and its id here."""
    directory.mkdir(exist_ok=True)
    old = f"ft:{BASE}:acme:{directory.parent.name[-20:]}:{directory.name}"
    has = OpenAI()
    has.models = [BASE, old]
    job = has.add_job(old, BASE, has.add_file(chats(COUNT)))
    with openai_source.serving(has):
        moving = migrations.moving(directory, has.url, settings=over_http(server))
        for step in (["inventory"], ["download"], ["record", "--yes"]):
            assert moving.run(*step).returncode == 0
    new = server.make_model(suffix="again").id
    migrations.note_made_again(moving, job, new)
    return moving, old, new


def _compared(moving: Moving, *options: str) -> dict[str, Any]:
    ran = moving.run("compare", "--json", *options)
    (found,) = json.loads(ran.stdout)["comparisons"]
    assert isinstance(found, dict)
    return found | {"exit": ran.returncode, "said": ran.stderr}


def _lines(server: Server, report: dict[str, Any]) -> list[dict[str, Any]]:
    contents = [server.client().files.content(one).read() for one in report["files"]]
    return [json.loads(line) for content in contents for line in content.splitlines()]


def test_answers_of_both_sides_are_in_a_sealed_file_that_is_derived_from_the_recorded_ones(
    server: Server, tmp_path: Path
) -> None:
    moving, old, new = _recorded(server, tmp_path)
    found = _compared(moving)
    assert (found["exit"], found["source_model"], found["model"]) == (0, old, new)
    assert found["figures"]["answers"] == COUNT
    assert found["figures"]["exact"] == {"of": COUNT, "share": 0.0}
    assert (found["figures"]["refused_there"], found["figures"]["refused_here"]) == (0, 0)
    lines = _lines(server, found)
    assert sorted(one["line"] for one in lines) == list(range(1, COUNT + 1))
    for one in lines:
        assert one["there"]["response"]["model"] == old
        assert one["here"]["response"]["choices"][0]["message"]["content"] == HERE
    (noted,) = migrations.answer_notes(moving)
    (report,) = found["files"]
    derived: Any = server.client().files.retrieve(report).to_dict()["derived_from"]
    assert set(derived) == {*noted["files"], noted["prompts_file"]}
    assert migrations.files_with([PROMPT_CANARY, ANSWER_CANARY], moving.state, server.data) == []
    plan = server.get(f"/v1/files/{noted['files'][0]}/deletion_plan", key=server.owner_key).json
    assert report in plan["derived_files"]


def test_what_was_compared_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    moving, _, _ = _recorded(server, tmp_path)
    first = _compared(moving)
    with CuttingProxy(server.address) as proxy:
        settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
        again = _compared(Moving(moving.url, moving.key_file, moving.state, settings))
        assert not any(b"/chat/completions" in one for one in proxy.requests)
    assert (again["figures"], again["files"]) == (first["figures"], first["files"])


def test_a_threshold_decides_the_status(server: Server, tmp_path: Path) -> None:
    moving, _, new = _recorded(server, tmp_path)
    for options, below in (
        (("--at-least", "exact=0"), []),
        (("--at-least", "exact=0.5"), ["exact"]),
        (("--at-least", "exact=0", "--at-least", "json=0.1"), ["json"]),
    ):
        found = _compared(moving, *options)
        assert found["below"] == below
        assert found["exit"] == (ExitCode.FAILED if below else 0)
        assert (f"{new} is below the threshold" in found["said"]) == bool(below)


@pytest.mark.parametrize("given", ["exact", "exact=2", "exact=-1", "speed=0.5", "exact=x"])
def test_a_threshold_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    ran = migrations.moving(tmp_path, "http://127.0.0.1:9/v1").run("compare", "--at-least", given)
    assert ran.returncode == ExitCode.USAGE
    assert "a share from 0 to 1" in ran.stderr


def test_text_is_shown_on_request_only(server: Server, tmp_path: Path) -> None:
    moving, _, _ = _recorded(server, tmp_path)
    ran = moving.run("compare")
    assert ran.returncode == 0, ran.stderr
    (row,) = migrations.lines(ran)
    assert row[2:4] == [str(COUNT), f"0.000 of {COUNT}"]
    assert PROMPT_CANARY not in ran.stdout + ran.stderr
    assert HERE not in ran.stdout
    shown = moving.run("compare", "--show").stdout
    assert f"line 1: {PROMPT_CANARY} 0" in shown
    assert HERE in shown


def test_a_configuration_for_promptfoo_is_its_owners(server: Server, tmp_path: Path) -> None:
    moving, old, new = _recorded(server, tmp_path)
    place = tmp_path / "promptfoo"
    ran = moving.run("compare", "--promptfoo", str(place))
    assert "unencrypted" in ran.stderr
    (path,) = place.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = json.loads(path.read_text())
    (provider,) = found["providers"]
    assert provider["id"] == f"openai:chat:{new}"
    assert provider["config"]["apiBaseUrl"] == server.url
    assert len(found["tests"]) == COUNT
    value = found["tests"][0]["assert"][0]["value"]
    assert value.startswith(f'{{{{ "{old} answers {PROMPT_CANARY}')


def test_what_has_no_answers_or_no_new_model_is_named(server: Server, tmp_path: Path) -> None:
    moving, old, _ = _recorded(server, tmp_path)
    for path in moving.state.glob("answers-*.json"):
        path.unlink()
    ran = moving.run("compare")
    assert ran.returncode == ExitCode.CONFLICT
    assert f"{old} has no recorded answers" in ran.stderr
    (moving.state / "retrain.json").unlink()
    assert "was not made again yet" in moving.run("compare", "--model", old).stderr


def test_answers_that_were_deleted_are_said(server: Server, tmp_path: Path) -> None:
    moving, old, _ = _recorded(server, tmp_path)
    (noted,) = migrations.answer_notes(moving)
    (report,) = _compared(moving)["files"]
    for file in (*noted["files"], report):
        server.client().files.delete(file)
    found = _compared(moving)
    assert f"{noted['files'][0]}, answers of {old}, is not on this server." in found["said"]
    assert (found["files"], found["figures"]["answers"]) == ([], 0)
    assert found["exit"] == ExitCode.NOT_FOUND, "as with the state of another server"
    assert "They are on the server at which `record` was run" in found["said"]


def test_wherever_it_is_killed_each_answer_is_compared_once(server: Server, tmp_path: Path) -> None:
    kills = 0
    for at in range(1, 200, STRIDE):
        moving, _, _ = _recorded(server, tmp_path / str(at))
        killer = Killer(at)
        with CuttingProxy(server.address, on_piece=killer.on_piece) as proxy:
            settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
            through = Moving(moving.url, moving.key_file, moving.state, settings)
            process = killer.process = through.start("compare")
            status = process.wait()
            killer.process = None
            assert process.stderr is not None
            process.stderr.close()
        found = _compared(moving)
        assert found["exit"] == 0, found["said"]
        lines = [one["line"] for one in _lines(server, found)]
        assert sorted(lines) == list(range(1, COUNT + 1))
        if not status:
            break
        kills += 1
    print(f"killed-comparisons kills {kills} violations 0")
    assert kills >= 2
