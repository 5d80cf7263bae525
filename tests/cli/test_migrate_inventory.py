"""`migrate openai inventory`, from OpenAI's stand-in and from a real server of ours."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import KEY, USED_UP, OpenAI, Refusal, rate_limited
from tests.support import migrations
from tests.support.migrations import FIRST, GONE, OLD_BASE, SECOND, Moving

from tunewarden.cli.exit_codes import ExitCode


@pytest.fixture
def source() -> Iterator[OpenAI]:
    with openai_source.serving(migrations.acme()) as has:
        yield has


@pytest.fixture
def moving(source: OpenAI, tmp_path: Path) -> Moving:
    return migrations.moving(tmp_path, source.url)


def _by_id(objects: Any) -> dict[str, Any]:
    return {one["id"]: one for one in objects}


def test_models_are_listed_by_the_day_on_which_they_stop(moving: Moving) -> None:
    ran = moving.run("inventory")
    assert ran.returncode == 0, ran.stderr
    table = migrations.lines(ran)
    assert [(row[0], row[2], row[6]) for row in table] == [
        ("2027-01-14", SECOND, "listed"),
        ("2027-01-14", FIRST, "listed"),
        ("-", GONE, "gone"),
    ]
    assert "no new jobs after 2027-01-06" in ran.stderr
    assert "3 models, 3 jobs, 4 files, 1 checkpoints." in ran.stderr


def test_the_inventory_has_what_a_job_is_made_again_from(source: OpenAI, moving: Moving) -> None:
    ran = moving.run("inventory", "--json")
    found = json.loads(ran.stdout)
    assert found.items() <= moving.noted("inventory").items()
    made = {job["fine_tuned_model"]: job for job in found["jobs"]}
    first, second = made[FIRST], made[SECOND]
    assert first["method"] == source.jobs[0]["method"]
    assert first["hyperparameters"]["n_epochs"] == 3
    assert (first["seed"], first["suffix"], first["continues"]) == (42, "support", None)
    assert first["error_code"] is None
    assert [one["model"] for one in first["checkpoints"]] == [f"{FIRST}:ckpt-step-10"]
    assert second["continues"] == first["id"]
    assert _by_id(found["files"])[first["training_file"]]["used_by"] == [first["id"], second["id"]]


def test_what_cannot_be_had_any_more_is_named_with_its_reason(moving: Moving) -> None:
    ran = moving.run("inventory", "--json")
    found = json.loads(ran.stdout)
    why = {(one["kind"], one["id"]): one["reason"] for one in found["missing"]}
    files = _by_id(found["files"])
    (expired,) = [name for name, one in files.items() if one["filename"] == "old.jsonl"]
    assert why == {
        ("model", GONE): "deleted, or not offered to this key",
        ("file", "file-deleted"): "deleted or expired",
        ("file", expired): "expired on 2024-12-24",
    }
    said = moving.run("inventory").stderr
    assert f"Missing: model {GONE}: deleted, or not offered to this key (ftjob-" in said
    assert "Missing: file file-deleted: deleted or expired (ftjob-" in said


def test_a_listed_model_whose_base_is_gone_is_named(source: OpenAI, moving: Moving) -> None:
    source.models.append(GONE)
    found = json.loads(moving.run("inventory", "--json").stdout)
    missing = {(one["kind"], one["id"]): one["needed_by"] for one in found["missing"]}
    assert missing["base", OLD_BASE] == [GONE]
    assert ("model", GONE) not in missing


def test_every_page_of_a_list_is_read(source: OpenAI, moving: Moving) -> None:
    source.page_size = 1
    found = json.loads(moving.run("inventory", "--json").stdout)
    assert len(found["jobs"]) == 3
    assert len(found["files"]) == 4


def test_an_answer_that_is_cut_in_its_head_is_asked_for_again(
    source: OpenAI, tmp_path: Path
) -> None:
    host, port = source.url.removeprefix("http://").removesuffix("/v1").split(":")
    with CuttingProxy((host, int(port)), lose=1, skip=1, after_bytes=40) as proxy:
        ran = migrations.moving(tmp_path, proxy.url).run("inventory")
        assert proxy.lose == 0
    assert ran.returncode == 0, ran.stderr
    assert "gave no answer, or not all of it" in ran.stderr


def test_limits_of_the_organization_are_waited_for(source: OpenAI, moving: Moving) -> None:
    source.refusals.extend(
        [
            rate_limited(retry_after="0.01"),
            None,
            rate_limited(retry_after_ms="20"),
            Refusal(503, "The server is currently overloaded", headers={"retry-after": "0"}),
        ]
    )
    ran = moving.run("inventory")
    assert ran.returncode == 0, ran.stderr
    assert source.count_of("GET", "/models") == 2
    assert source.count_of("GET", "/files") == 3


def test_a_quota_that_is_used_up_ends_it_at_once(source: OpenAI, moving: Moving) -> None:
    source.refusals.append(USED_UP)
    ran = moving.run("inventory")
    assert ran.returncode == ExitCode.REFUSED
    assert "quota" in ran.stderr
    assert len(source.asked) == 1


def test_nothing_but_reading_is_asked_of_the_source(source: OpenAI, moving: Moving) -> None:
    moving.run("inventory")
    assert {one.method for one in source.asked} == {"GET"}


def test_a_key_that_is_refused_is_shown_nowhere(source: OpenAI, tmp_path: Path) -> None:
    wrong = "sk-proj-a-wrong-key"
    ran = migrations.moving(tmp_path, source.url, key=wrong).run("inventory")
    assert ran.returncode == ExitCode.REFUSED
    assert "does not accept this key" in ran.stderr
    assert "sk-" not in ran.stderr
    assert all(wrong not in path.read_text() for path in (tmp_path / "state").iterdir())


def test_a_key_that_others_can_read_is_not_used(source: OpenAI, moving: Moving) -> None:
    moving.key_file.chmod(0o640)
    ran = moving.run("inventory")
    assert ran.returncode == ExitCode.REFUSED
    assert f"chmod 600 {moving.key_file}" in ran.stderr
    assert source.asked == []


def test_a_state_is_of_one_source(source: OpenAI, moving: Moving, tmp_path: Path) -> None:
    assert moving.run("inventory").returncode == 0
    with openai_source.serving(migrations.acme()) as other:
        ran = migrations.moving(tmp_path, other.url).run("inventory")
    assert ran.returncode == ExitCode.CONFLICT
    assert other.asked == []


def test_the_state_is_its_owners_alone(moving: Moving) -> None:
    moving.run("inventory")
    assert moving.state.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in moving.state.iterdir())


def test_azure_differs_in_paths_and_header(source: OpenAI, moving: Moving) -> None:
    root = source.url.removesuffix("/v1")
    azure = Moving(root, moving.key_file, moving.state, {})
    ran = azure.run("inventory", "--azure", "--api-version", "2024-10-21", "--json")
    assert ran.returncode == 0, ran.stderr
    assert {one.query["api-version"] for one in source.asked} == {"2024-10-21"}
    assert {one.headers["api-key"] for one in source.asked} == {KEY}
    assert not any("authorization" in one.headers for one in source.asked)
    # Azure has dates of its own.
    assert {one["shutdown_on"] for one in json.loads(ran.stdout)["models"]} == {None}


ODD: list[tuple[str, object]] = [
    ("id", "\x1b[2J../../etc/passwd\x00"),
    ("created_at", "yesterday"),
    ("finished_at", 1e300),
    ("finished_at", -1),
    ("trained_tokens", 10**400),
    ("result_files", 5),
    ("result_files", [{}, None, ["x"]]),
    ("error", "it failed"),
    ("error", {"code": ["x"]}),
    ("fine_tuned_model", {"a": 1}),
    ("training_file", ["x"]),
    ("validation_file", "\ud800"),
    ("model", 7),
    ("method", "dpo"),
    ("user_provided_suffix", 5),
]


@pytest.mark.parametrize(("field", "value"), ODD)
def test_whatever_a_job_has_the_inventory_is_read(
    source: OpenAI, moving: Moving, field: str, value: object
) -> None:
    source.jobs[0][field] = value
    ran = moving.run("inventory")
    assert ran.returncode == 0, ran.stderr
    assert "\x1b" not in ran.stdout + ran.stderr
    assert len(json.loads(moving.run("inventory", "--json").stdout)["jobs"]) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("expires_at", -1e300), ("expires_at", True), ("filename", 5), ("bytes", -5), ("bytes", "x")],
)
def test_whatever_a_file_has_the_inventory_is_read(
    source: OpenAI, moving: Moving, field: str, value: object
) -> None:
    name = source.jobs[0]["training_file"]
    source.files[name][field] = value
    found = json.loads(moving.run("inventory", "--json").stdout)
    assert _by_id(found["files"])[name][field] is None
