"""From one server of ours to another: real jobs, real files, and connections that break on the way."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types.fine_tuning import FineTuningJob
from tests.cli.in_process import over_http
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support import migrations, servers
from tests.support.migrations import ANSWER_CANARY, PROMPT_CANARY, Moving, chats
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.cli.exit_codes import ExitCode


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("source") / "data"
    with servers.serving(data, local_base=True, kind=migrations.WithFakeTrainer) as running:
        yield running


def _by_id(objects: Any) -> dict[str, Any]:
    return {one["id"]: one for one in objects}


def test_the_inventory_of_real_jobs(source: Server, tmp_path: Path) -> None:
    client = source.client()
    job = migrations.trained(client, "listed")
    made = job.fine_tuned_model
    assert made is not None
    moving = migrations.moving(tmp_path, source.url, key=source.owner_key)
    ran = moving.run("inventory", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    read = _by_id(found["jobs"])[job.id]
    assert (read["fine_tuned_model"], read["suffix"], read["seed"]) == (made, "listed", 3)
    assert read["checkpoints"]
    model = _by_id(found["models"])[made]
    assert (model["base"], model["job"], model["state"]) == (LOCAL_BASE, job.id, "listed")
    assert {job.training_file, job.validation_file, *job.result_files} <= _by_id(
        found["files"]
    ).keys()
    client.files.delete(job.training_file)
    client.models.delete(made)
    later = json.loads(moving.run("inventory", "--json").stdout)
    gone = {(one["kind"], one["id"]): one["needed_by"] for one in later["missing"]}
    assert gone["model", made] == [job.id]
    assert gone["file", job.training_file] == [job.id]


def test_files_and_answers_come_over_connections_that_break(
    source: Server, server: Server, tmp_path: Path
) -> None:
    job = migrations.trained(source.client(), "moved")
    made = job.fine_tuned_model
    assert made is not None
    with CuttingProxy(source.address) as proxy:
        settings = over_http(server)
        moving = migrations.moving(tmp_path, proxy.url, key=source.owner_key, settings=settings)
        assert moving.run("inventory").returncode == 0
        # In the middle of the first file, and of the first answers.
        proxy.lose_answer_to, proxy.after_bytes = b"/content", 700
        downloaded = moving.run("download")
        assert downloaded.returncode == 0, downloaded.stderr
        assert "broke off" in downloaded.stderr
        proxy.lose, proxy.after_bytes = 2, 300
        recorded = moving.run("record", "--yes", "--model", made)
        assert recorded.returncode == 0, recorded.stderr
        assert "gave no answer, or not all of it" in recorded.stderr
    _check_files(source, server, moving, job)
    found = migrations.answers(server, moving)
    assert sorted(one["line"] for one in found) == [1, 2, 3, 4]
    assert {one["model"] for one in found} == {made}
    # So says the stand-in of the engine.
    assert {one["response"]["choices"][0]["message"]["content"] for one in found} == {"x" * 8}
    assert migrations.files_with([PROMPT_CANARY, ANSWER_CANARY], moving.state, source.data) == []


def _check_files(source: Server, server: Server, moving: Moving, job: FineTuningJob) -> None:
    saved = moving.noted("downloads")["files"]
    assert isinstance(saved, dict)
    assert job.validation_file is not None
    for name in (job.training_file, job.validation_file, *job.result_files):
        there = source.client().files.content(name).read()
        assert server.client().files.content(saved[name]["file"]).read() == there
        assert saved[name]["sha256"] == hashlib.sha256(there).hexdigest()


def test_a_model_that_is_deleted_meanwhile_is_gone(
    source: Server, server: Server, tmp_path: Path
) -> None:
    model = source.make_model(suffix="short")
    moving = migrations.moving(
        tmp_path, source.url, key=source.owner_key, settings=over_http(server)
    )
    assert moving.run("inventory").returncode == 0
    source.client().models.delete(model.id)
    path = tmp_path / "mine.jsonl"
    path.write_bytes(chats(2))
    ran = moving.run("record", "--yes", "--model", model.id, "--prompts", str(path))
    assert ran.returncode == 0, ran.stderr
    assert f"{model.id} is gone" in ran.stderr


def test_a_server_that_refuses_the_key_is_not_noted_as_the_target(
    source: Server, server: Server, tmp_path: Path
) -> None:
    settings = over_http(server)
    moving = migrations.moving(tmp_path, source.url, key=source.owner_key, settings=settings)
    assert moving.run("inventory").returncode == 0
    # The key of the right server, at the wrong one.
    wrong = replace(moving, settings={**settings, "OPENAI_BASE_URL": source.url})
    refused = wrong.run("download")
    assert refused.returncode != 0
    assert "Incorrect API key" in refused.stderr
    assert not (moving.state / "target.json").exists()
    done = moving.run("download")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("step", "more"), [("download", []), ("record", ["--yes"]), ("delete-source", ["--dry-run"])]
)
def test_a_server_does_not_move_to_itself(
    source: Server, tmp_path: Path, step: str, more: list[str]
) -> None:
    moving = migrations.moving(
        tmp_path, source.url, key=source.owner_key, settings=over_http(source)
    )
    assert moving.run("inventory").returncode == 0
    files = len(list(source.client().files.list()))
    refused = moving.run(step, *more)
    assert refused.returncode == ExitCode.CONFLICT, refused.stderr
    assert "is the server to which it moves" in refused.stderr
    assert len(list(source.client().files.list())) == files
    assert not (moving.state / "target.json").exists()
