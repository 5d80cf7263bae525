"""`migrate openai retrain`: the source's jobs made again here, each once, chains in order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError
from openai.types.fine_tuning import FineTuningJob
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.openai_source import OpenAI
from tests.support import migrations, servers
from tests.support.migrations import (
    ANSWER_CANARY,
    BASE,
    FIRST,
    GONE,
    PROMPT_CANARY,
    SECOND,
    Moving,
    WithFakeTrainer,
    chats,
)
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.cli.exit_codes import ExitCode

MAP = ("--map", f"gpt-4o-mini={LOCAL_BASE}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The target: a server that trains, by the trainer's stand-in."""
    data = tmp_path_factory.mktemp("target") / "data"
    with servers.serving(data, local_base=True, kind=WithFakeTrainer) as running:
        yield running


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The source: another one."""
    data = tmp_path_factory.mktemp("source") / "data"
    with servers.serving(data, local_base=True, kind=WithFakeTrainer) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Iterator[OpenAI]:
    """OpenAI's stand-in, whose jobs are of this test: the target is shared."""
    has = migrations.acme()
    for job in has.jobs:
        has.checkpoints[f"{job['id']}-{tmp_path.name}"] = has.checkpoints.pop(job["id"], [])
        job["id"] += f"-{tmp_path.name}"
    with openai_source.serving(has):
        yield has


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run said; jobs by the id of the source's."""

    status: int
    said: str
    jobs: dict[str, dict[str, Any]]


def _retrained(moving: Moving, *options: str) -> Ran:
    ran = moving.run("retrain", "--json", *options)
    jobs = {one["source_job"]: one for one in json.loads(ran.stdout)["jobs"]}
    return Ran(ran.returncode, ran.stderr, jobs)


def _downloaded(source: str, server: Server, directory: Path, key: str) -> Moving:
    moving = migrations.moving(directory, source, key=key, settings=over_http(server))
    assert moving.run("inventory").returncode == 0
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    return moving


def _from_openai(source: OpenAI, server: Server, directory: Path) -> Moving:
    return _downloaded(source.url, server, directory, openai_source.KEY)


def _job_of(source: OpenAI, model: str) -> dict[str, Any]:
    return next(one for one in source.jobs if one["fine_tuned_model"] == model)


def _jobs(server: Server) -> set[str]:
    return {one.id for one in server.client().fine_tuning.jobs.list()}


def test_jobs_of_another_server_are_made_again_in_the_order_of_their_chain(
    origin: Server, server: Server, tmp_path: Path
) -> None:
    first = migrations.trained(origin.client(), "first")
    assert first.fine_tuned_model is not None
    second = migrations.trained(origin.client(), "second", first.fine_tuned_model)
    moving = _downloaded(origin.url, server, tmp_path, origin.owner_key)
    ran = _retrained(moving)
    assert ran.status == 0, ran.said
    assert {first.id, second.id} <= ran.jobs.keys()
    here = server.client()
    for there in (first, second):
        said = ran.jobs[there.id]
        made = here.fine_tuning.jobs.retrieve(said["job"])
        assert (made.status, made.seed, made.fine_tuned_model) == ("succeeded", 3, said["model"])
        assert made.to_dict()["user_provided_suffix"] == there.to_dict()["user_provided_suffix"]
        assert made.hyperparameters == there.hyperparameters
        assert made.metadata is not None
        assert made.metadata["source_job"] == there.id
        assert made.metadata["source_model"] == there.fine_tuned_model
        assert made.metadata["source_created_at"].startswith("20")
        model = here.models.retrieve(said["model"]).to_dict()
        assert model["metadata"] == made.metadata
        files = (made.training_file, made.validation_file)
        for mine, theirs in zip(files, (there.training_file, there.validation_file), strict=True):
            assert mine is not None
            assert theirs is not None
            content = here.files.content(mine).read()
            assert content == origin.client().files.content(theirs).read()
    start = here.fine_tuning.jobs.retrieve(ran.jobs[second.id]["job"]).model
    assert start == ran.jobs[first.id]["model"]
    assert migrations.files_with([PROMPT_CANARY, ANSWER_CANARY], moving.state, server.data) == []


def _learned(server: Server, file: str) -> dict[str, Any]:
    plan = server.get(f"/v1/files/{file}/deletion_plan", key=server.owner_key).json
    learned = plan["learned"]
    assert isinstance(learned, dict)
    return learned


def _check_erased_by_file(server: Server, moving: Moving, job: FineTuningJob) -> None:
    """Erasing a file takes along the models that learned from it, and what was recorded and compared from it."""
    downloads, retrained = moving.noted("downloads")["files"], moving.noted("retrain")["jobs"]
    assert isinstance(downloads, dict)
    assert isinstance(retrained, dict)
    training, file = (
        downloads[str(one)]["file"] for one in (job.training_file, job.validation_file)
    )
    derived = {
        name
        for path in (*moving.state.glob("answers-*.json"), *moving.state.glob("comparison-*.json"))
        for name in json.loads(path.read_text())["files"]
    }
    assert len(derived) == 2
    assert {one["model"] for one in retrained.values()} <= set(_learned(server, training)["models"])
    assert derived <= set(_learned(server, file)["files"])
    # Answers of a model may quote what it learned from, whatever it was asked.
    assert derived <= set(_learned(server, training)["files"])
    moving.run("rollback")
    client = server.client()
    client.delete(f"/files/{file}?cascade=models", cast_to=object)
    for name in derived:
        with pytest.raises(NotFoundError):
            client.files.content(name)


def test_the_whole_way_from_one_server_to_another(
    origin: Server, server: Server, tmp_path: Path
) -> None:
    """Each command, twice: the second time there is nothing left to do."""
    job = migrations.trained(origin.client(), "whole")
    old = job.fine_tuned_model
    assert old is not None
    moving = migrations.moving(
        tmp_path, origin.url, key=origin.owner_key, settings=over_http(server)
    )
    only = ("--model", old)
    for step, *options in (
        ("inventory",),
        ("download",),
        ("record", "--yes", *only),
        ("retrain", *only),
        ("compare", *only, "--at-least", "exact=1"),
        ("switch", *only),
    ):
        for _ in range(2):
            ran = moving.run(step, *options)
            assert ran.returncode == 0, ran.stderr
    asked: Any = [{"role": "user", "content": "Hello"}]
    said = [
        one.client().chat.completions.create(model=old, messages=asked).choices[0].message.content
        for one in (origin, server)
    ]
    assert said[0] == said[1]
    # There it is gone, here it answers by its old name.
    deleted = moving.run("delete-source", "--yes", "--json")
    assert deleted.returncode == 0, deleted.stderr
    assert old in {one["id"] for one in json.loads(deleted.stdout)["answers"]}
    with pytest.raises(NotFoundError):
        origin.client().chat.completions.create(model=old, messages=asked)
    assert server.client().chat.completions.create(model=old, messages=asked).choices
    _check_erased_by_file(server, moving, job)
    needles = [PROMPT_CANARY, ANSWER_CANARY]
    assert migrations.files_with([job.id], moving.state), "what stands there is found"
    assert migrations.files_with(needles, moving.state, server.data, origin.data) == []


def test_what_was_made_is_found_again_with_the_state_and_without(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _from_openai(source, server, tmp_path)
    before = _retrained(moving, *MAP)
    assert before.status == 0, before.said
    known = _jobs(server)
    assert _retrained(moving, *MAP).jobs == before.jobs
    (moving.state / "retrain.json").unlink()
    assert _retrained(moving, *MAP).jobs == before.jobs
    assert _jobs(server) == known


def test_a_dry_run_makes_nothing_and_says_what_has_no_counterpart(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    odd = {"n_epochs": 3, "batch_size": 512, "learning_rate_multiplier": 1.8, "warmup": 2}
    _job_of(source, FIRST)["hyperparameters"] = None
    _job_of(source, FIRST)["method"] = {
        "type": "supervised",
        "supervised": {"hyperparameters": odd},
    }
    _job_of(source, FIRST)["integrations"] = [{"type": "wandb", "wandb": {"project": "p"}}]
    _job_of(source, FIRST)["user_provided_suffix"] = "not a suffix"
    _job_of(source, FIRST)["metadata"] = {f"key{number}": "v" for number in range(16)}
    _job_of(source, SECOND)["method"] = {"type": "reinforcement", "reinforcement": {}}
    moving = _from_openai(source, server, tmp_path)
    known = _jobs(server)
    planned = _retrained(moving, *MAP, "--dry-run", "--model", FIRST, "--model", SECOND)
    assert planned.status == ExitCode.FAILED, "one would be refused"
    assert "This was a dry run. Nothing was made." in planned.said
    assert _jobs(server) == known
    first, second = (_job_of(source, one)["id"] for one in (FIRST, SECOND))
    assert (planned.jobs[first]["status"], planned.jobs[first]["base"]) == ("waiting", LOCAL_BASE)
    notes = " ".join(planned.jobs[first]["not_carried_over"])
    for said in ("batch_size 512", "warmup 2", "integrations", "suffix not a suffix", "4 pairs"):
        assert said in notes
    assert "n_epochs" not in notes
    assert planned.jobs[second]["status"] == "refused"
    assert "no method 'reinforcement'" in planned.said


def test_what_cannot_be_made_is_named_with_what_would_help(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    """A base that is not mapped, what goes on from it, and a file that is gone at the source."""
    source.models.append(GONE)
    moving = _from_openai(source, server, tmp_path)
    known = _jobs(server)
    ran = _retrained(moving, "--map", "gpt-3.5-turbo=nothing-here")
    first, second, gone = (_job_of(source, one)["id"] for one in (FIRST, SECOND, GONE))
    assert f"map it with --map {BASE}=" in ran.jobs[first]["reason"]
    wrong = _retrained(moving, "--map", "gpt-4o-mini=nothing-here", "--dry-run")
    assert f"'nothing-here' here, to which {BASE} is mapped" in wrong.jobs[first]["reason"]
    assert "--map nothing-here=" not in wrong.said
    for maps, said in (
        (("gpt-4o-minni=x",), "no job of the source was made on gpt-4o-minni"),
        (("gpt-4o-mini=x", "gpt-4o-mini=y"), "gpt-4o-mini is mapped twice"),
    ):
        refused = moving.run("retrain", *(part for one in maps for part in ("--map", one)))
        assert (refused.returncode, said in refused.stderr) == (ExitCode.USAGE, True)
    assert first in ran.jobs[second]["reason"]
    assert "file-deleted is not saved here" in ran.jobs[gone]["reason"]
    assert ran.status == ExitCode.FAILED
    assert _jobs(server) == known


def test_what_was_deleted_at_the_source_is_left_out_unless_it_is_wanted(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _from_openai(source, server, tmp_path)
    gone = _job_of(source, GONE)["id"]
    ran = _retrained(moving, *MAP, "--dry-run")
    assert gone not in ran.jobs
    assert f"Left out, because they were deleted at the source: {GONE}" in ran.said
    for option in (("--with-gone",), ("--model", GONE)):
        assert gone in _retrained(moving, *MAP, "--dry-run", *option).jobs


def test_a_job_that_fails_here_is_said_and_made_once_more_when_that_is_asked_for(
    server: Server, tmp_path: Path
) -> None:
    has = OpenAI()
    has.models = [BASE, f"ft:{BASE}:acme::short"]
    job = has.add_job(has.models[1], BASE, has.add_file(chats(2, first=900)))
    with openai_source.serving(has):
        moving = _from_openai(has, server, tmp_path)
        ran = _retrained(moving, *MAP)
        assert (ran.status, ran.jobs[job]["status"]) == (ExitCode.FAILED, "failed")
        assert "--retry-failed makes it once more" in ran.said
        assert _retrained(moving, *MAP).jobs[job]["job"] == ran.jobs[job]["job"]
        again = _retrained(moving, *MAP, "--retry-failed")
        assert again.jobs[job]["job"] != ran.jobs[job]["job"]


def test_a_model_that_was_deleted_here_is_not_made_again(server: Server, tmp_path: Path) -> None:
    has = OpenAI()
    has.models = [BASE, f"ft:{BASE}:acme::erased"]
    job = has.add_job(has.models[1], BASE, has.add_file(chats(12, first=700)))
    with openai_source.serving(has):
        moving = _from_openai(has, server, tmp_path)
        made = _retrained(moving, *MAP).jobs[job]
        server.client().models.delete(made["model"])
        known = _jobs(server)
        for _ in range(2):
            ran = _retrained(moving, *MAP, "--retry-failed")
            assert (ran.status, ran.jobs[job]["status"]) == (ExitCode.FAILED, "deleted")
            (moving.state / "retrain.json").unlink()
        assert _jobs(server) == known


def test_without_a_migration_or_a_server_it_says_what_to_do(data: Path, tmp_path: Path) -> None:
    moving = migrations.moving(tmp_path, "http://127.0.0.1:9/v1")
    ran = moving.run("retrain")
    assert ran.returncode == ExitCode.CONFLICT
    assert "run `migrate openai inventory` first" in ran.stderr


@pytest.mark.parametrize("given", ["nothing", "=here", "there="])
def test_a_map_that_is_none_is_refused(given: str, tmp_path: Path) -> None:
    moving = migrations.moving(tmp_path, "http://127.0.0.1:9/v1")
    ran = moving.run("retrain", "--map", given)
    assert ran.returncode == ExitCode.USAGE
    assert "THERE=HERE" in ran.stderr
