"""`migrate openai switch` and `rollback`: the old id is an alias of the new model, and what was before comes back."""

import json
import os
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.chaos.test_killed_migrations import Killer
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI
from tests.support import migrations, servers
from tests.support.migrations import BASE, Moving
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.migration_aliases import HttpAliases

PIECES_MAX = 40
STRIDE = 1 if os.environ.get("TUNEWARDEN_TORTURE") else 4


def _moved(server: Server, directory: Path) -> tuple[Moving, str, str]:
    """Return a migration whose one model was made again, its old id, and its id here."""
    directory.mkdir(exist_ok=True)
    old = f"ft:{BASE}:acme:{directory.parent.name[-20:]}:{directory.name}"
    has = OpenAI()
    has.models = [BASE, old]
    job = has.add_job(old, BASE, has.add_file(migrations.chats(12)))
    with openai_source.serving(has):
        moving = migrations.moving(directory, has.url, settings=over_http(server))
        assert moving.run("inventory").returncode == 0
    migrations.note_made_again(moving, job, new := server.make_model(suffix="again").id)
    return moving, old, new


def _done(moving: Moving, step: str, *options: str) -> dict[str, Any]:
    ran = moving.run(step, "--json", *options)
    (done,) = json.loads(ran.stdout)["aliases"]
    assert isinstance(done, dict)
    return done | {"exit": ran.returncode, "said": ran.stderr}


def _answers(server: Server, name: str) -> bool:
    asked = [{"role": "user", "content": "Hello"}]
    try:
        server.client().post(
            "/chat/completions", body={"model": name, "messages": asked}, cast_to=object
        )
    except openai.NotFoundError:
        return False
    return True


def _alias(server: Server, name: str) -> dict[str, Any]:
    return server.get(f"/v1/aliases/{name}", key=server.owner_key).json


def test_the_old_id_answers_here_and_no_longer_after_a_rollback(
    server: Server, tmp_path: Path
) -> None:
    moving, old, new = _moved(server, tmp_path)
    assert not _answers(server, old)
    ran = moving.run("switch")
    assert ran.returncode == 0, ran.stderr
    assert migrations.pairs(ran) == {old: new}
    assert f"  OPENAI_BASE_URL={server.url}" in ran.stderr.splitlines()
    assert "  OPENAI_API_KEY=…" in ran.stderr
    assert server.owner_key not in ran.stderr + ran.stdout
    assert _answers(server, old)
    assert _done(moving, "switch")["version"] == 1, "the same again is no new version"
    assert moving.run("rollback").returncode == 0
    assert not _answers(server, old)
    assert server.client().models.retrieve(new).id == new


def test_an_alias_that_was_there_points_again_to_what_it_did(
    server: Server, tmp_path: Path
) -> None:
    moving, old, new = _moved(server, tmp_path)
    before = server.make_model(suffix="before").id
    server.post("/v1/aliases", {"name": old, "model": before})
    assert _done(moving, "switch")["version"] == 2
    assert _done(moving, "rollback")["status"] == "rolled back"
    assert [one["model"] for one in _alias(server, old)["targets"]] == [before]
    assert moving.run("rollback", "--json").stdout == '{"aliases": []}\n'
    assert new != before


@pytest.mark.parametrize("step", ["switch", "rollback"])
def test_a_dry_run_changes_nothing(server: Server, tmp_path: Path, step: str) -> None:
    moving, old, _ = _moved(server, tmp_path)
    if step == "rollback":
        moving.run("switch")
    has_answered = _answers(server, old)
    done = _done(moving, step, "--dry-run")
    assert (done["status"], done["exit"]) == ("planned", 0)
    assert "This was a dry run." in done["said"]
    assert _answers(server, old) is has_answered


def test_what_was_changed_since_stays(server: Server, tmp_path: Path) -> None:
    moving, old, _ = _moved(server, tmp_path)
    moving.run("switch")
    other = server.make_model(suffix="other").id
    server.post(f"/v1/aliases/{old}", {"model": other})
    done = _done(moving, "rollback")
    assert (done["status"], done["exit"]) == ("refused", ExitCode.FAILED)
    assert "changed since" in done["said"]
    assert [one["model"] for one in _alias(server, old)["targets"]] == [other]


def test_a_model_that_is_gone_here_is_said_and_not_noted(server: Server, tmp_path: Path) -> None:
    moving, old, _ = _moved(server, tmp_path)
    job = moving.noted("inventory")["jobs"]
    assert isinstance(job, list)
    gone = server.make_model(suffix="gone").id
    server.client().models.delete(gone)
    migrations.note_made_again(moving, job[0]["id"], gone)
    done = _done(moving, "switch")
    assert (done["status"], done["exit"]) == ("refused", ExitCode.FAILED)
    assert "does not exist" in done["reason"]
    assert "OPENAI_BASE_URL" not in done["said"], "nothing was switched"
    assert moving.noted("switch")["aliases"] == {}
    assert not _answers(server, old)


def test_what_was_not_made_again_is_not_switched(server: Server, tmp_path: Path) -> None:
    moving, old, _ = _moved(server, tmp_path)
    (moving.state / "retrain.json").unlink()
    ran = moving.run("switch")
    assert ran.returncode == ExitCode.CONFLICT
    assert "run `migrate openai retrain` first" in ran.stderr
    assert _done(moving, "switch", "--model", old)["status"] == "refused"
    assert _done(moving, "rollback", "--model", old)["status"] == "refused"


def test_a_url_without_a_path_is_shown_with_it(server: Server, tmp_path: Path) -> None:
    moving, _, _ = _moved(server, tmp_path)
    bare = server.url.removesuffix("/v1")
    settings = {"TUNEWARDEN_URL": bare, "TUNEWARDEN_API_KEY": server.owner_key}
    ran = Moving(moving.url, moving.key_file, moving.state, settings).run("switch")
    assert f"OPENAI_BASE_URL={bare}/v1" in ran.stderr
    on_data = Moving(moving.url, moving.key_file, moving.state, {})
    said = on_data.run("switch", "--data", str(server.data)).stderr
    assert f"OPENAI_BASE_URL={server.url}" in said
    (advised,) = re.findall(r"`tunewarden (keys create .+?)`", said)
    assert servers.run_cli(*advised.split()).returncode == 0


def test_a_request_of_a_killed_command_that_comes_in_between_does_no_harm(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change has been made already when it is asked for."""
    moving, old, _ = _moved(server, tmp_path)
    made, deleted = HttpAliases.set, HttpAliases.delete

    def make_twice(self: HttpAliases, name: str, model: str, *, is_new: bool) -> dict[str, Any]:
        made(self, name, model, is_new=is_new)
        return made(self, name, model, is_new=is_new)

    def delete_twice(self: HttpAliases, name: str) -> None:
        deleted(self, name)
        deleted(self, name)

    monkeypatch.setattr(HttpAliases, "set", make_twice)
    monkeypatch.setattr(HttpAliases, "delete", delete_twice)
    done = _done(moving, "switch")
    assert (done["status"], done["version"], done["exit"]) == ("switched", 1, 0)
    assert _answers(server, old)
    assert _done(moving, "rollback")["exit"] == 0
    assert not _answers(server, old)


@pytest.mark.parametrize("was_there", [False, True])
def test_wherever_they_are_killed_a_rollback_restores_what_was(
    server: Server, tmp_path: Path, was_there: bool
) -> None:
    kills = 0
    for at in range(1, PIECES_MAX, STRIDE):
        moving, old, new = _moved(server, tmp_path / str(at))
        before = server.make_model(suffix="before").id
        if was_there:
            server.post("/v1/aliases", {"name": old, "model": before})
        for step in ("switch", "rollback"):
            killer = Killer(at)
            with CuttingProxy(server.address, on_piece=killer.on_piece) as proxy:
                settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
                through = Moving(moving.url, moving.key_file, moving.state, settings)
                process = killer.process = through.start(step)
                status = process.wait()
                kills += status != 0
                killer.process = None
                assert process.stderr is not None
                process.stderr.close()
            assert moving.run(step).returncode == 0
            if step == "switch":
                expected: list[str] | None = [new]
            else:
                expected = [before] if was_there else None
            found = _alias(server, old)
            targets = [one["model"] for one in found["targets"]] if "targets" in found else None
            assert targets == expected
        if not status:
            break
    print(f"killed-switches kills {kills} violations 0")
    assert kills >= 2
