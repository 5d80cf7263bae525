"""SIGKILL at random of a whole server, its runner and its trainers while fine-tuning jobs run.

Every job ends; none is lost, and none is done twice; nothing is left of any of them but what they made.
"""

import functools
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import openai
import pytest
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import jobs, servers

from tunewarden import app as composition
from tunewarden.app import open_app
from tunewarden.config import Config

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
JOBS = 50 if IS_LONG else 6
KILLS = 150 if IS_LONG else 12
WISHES = 10 if IS_LONG else 2
END_SECONDS = 600.0 if IS_LONG else 90.0
CHECKPOINTS = (10, 20, 30)
PLAN = {"steps": 30, "step_seconds": 0.03, "state_each": 5, "checkpoints": CHECKPOINTS}
CANARY = "chat-canary-of-killed-jobs"


class JobServer(FakeEngineServer):
    """Everything real but the engine and the trainers."""

    program: ClassVar[str] = "tests.fakes.with_fake_trainer"
    careless: ClassVar[dict[str, str]] = {"FAKE_TRAINER": json.dumps(PLAN)}

    def found(self, module: str) -> list[int]:
        """The processes below this server that run a module."""
        return [pid for pid in servers.descendants(self.process.pid) if _runs(pid, module)]


class CarelessJobServer(JobServer):
    """Its runner does not look whether it has been handed a step's model before."""

    careless: ClassVar[dict[str, str]] = {**JobServer.careless, "TEST_CARELESS": "yes"}


@dataclass
class Story:
    """What a client did and was told, and what was done to the server."""

    made: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    unanswered: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    wishes: Counter[str] = field(default_factory=Counter)


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _client(server: JobServer) -> openai.OpenAI:
    return server.client(max_retries=0, timeout=10)


def _create(server: JobServer, story: Story, file: str) -> None:
    try:
        job = _client(server).fine_tuning.jobs.create(model=servers.LOCAL_BASE, training_file=file)
        story.made.append(job.id)
    except (openai.APIConnectionError, openai.InternalServerError):
        story.unanswered += 1  # It may be there or not.


def _wish(server: JobServer, story: Story, numbers: random.Random) -> None:
    """Pause and resume a job, or cancel it."""
    job = numbers.choice(story.made)
    client = _client(server).fine_tuning.jobs
    try:
        if numbers.random() < 0.4:
            client.cancel(job)
            story.cancelled.add(job)
            story.wishes["cancel"] += 1
        else:
            client.pause(job)
            client.resume(job)
            story.wishes["pause"] += 1
    except (openai.APIConnectionError, openai.InternalServerError):
        pass
    except (openai.BadRequestError, openai.ConflictError):
        pass  # It has ended, or is still saving its state.


def _kill(server: JobServer, story: Story, numbers: random.Random) -> None:
    what = numbers.choice(["server", "runner", "runner", "trainer", "trainer", "trainer"])
    if what == "server":
        server.process.kill()
        server.process.wait()
        server._start()
    else:
        module = {
            "runner": "tests.fakes.runner_with_fake_trainer",
            "trainer": "tests.fakes.fake_trainer",
        }[what]
        pids = server.found(module)
        if not pids:
            return
        os.kill(numbers.choice(pids), signal.SIGKILL)
    story.kills[what] += 1


def _storm(server: JobServer, story: Story, numbers: random.Random) -> None:
    """Make jobs, and kill, until all was done; then let what is left come to its end."""
    file = _client(server).files.create(
        file=("chats.jsonl", jobs.chats(12, canary=CANARY)), purpose="fine-tune"
    )
    for _ in range(JOBS // 2):
        _create(server, story, file.id)
    wishes = 0
    attempts = 0
    while sum(story.kills.values()) < KILLS and attempts < 20 * KILLS:
        attempts += 1
        time.sleep(numbers.random() * 0.6)
        if len(story.made) + story.unanswered < JOBS:
            _create(server, story, file.id)
        if wishes < WISHES and numbers.random() < 0.3:
            wishes += 1
            _wish(server, story, numbers)
        _kill(server, story, numbers)
        if len(story.made) + story.unanswered >= JOBS and _unfinished(server) == 0:
            break
    _resume_all(server)
    servers.wait_until(lambda: _unfinished(server) == 0, "every job ends", END_SECONDS)


def _unfinished(server: JobServer) -> int:
    row = server.app.database.peek("SELECT COUNT(*) FROM jobs WHERE finished_at IS NULL")
    return int(row[0]) if row else 0


def _resume_all(server: JobServer) -> None:
    """A client whose resume was not answered asks again."""
    client = server.client().fine_tuning.jobs
    for job in client.list(limit=100):
        if getattr(job, "paused", False):
            servers.wait_until(functools.partial(_is_resumed, client, job.id), "it is resumed")


def _is_resumed(client: openai.resources.fine_tuning.Jobs, job: str) -> bool:
    try:
        client.resume(job)
    except openai.ConflictError:
        return False  # It is still saving its state.
    except openai.BadRequestError:
        return True
    return True


def _violations(server: JobServer, story: Story) -> list[str]:
    """With the server stopped in order: what is wrong with what the jobs left."""
    app = open_app(Config(data=server.data, scratch=server.data.parent, scratch_may_be_a_disk=True))
    with app.database.read() as tx:
        rows = tx.rows("SELECT n, id, status, error, model_n, result_n FROM jobs ORDER BY n")
        models = tx.rows("SELECT job_n, step FROM models")
        drafts = tx.rows("SELECT internal_id FROM drafts")
        results = tx.rows("SELECT n FROM files WHERE purpose = 'fine-tune-results'")
        checkpoints = tx.rows("SELECT model_n FROM job_checkpoints")
        states = tx.rows("SELECT n FROM jobs WHERE state_blobs IS NOT NULL")
    made: dict[int, list[int | None]] = {}
    for job_n, step in models:
        made.setdefault(job_n, []).append(step)
    wrong = _lost(story, {str(job): str(state) for _, job, state, *_ in rows})
    for n, job, state, error, model_n, result_n in rows:
        has_both = model_n is not None and result_n is not None
        what = _wrong_end(state, error, made.get(n, []), has_both=has_both)
        if what or (state != "succeeded" and (model_n or result_n)):
            wrong.append(f"{job} {state} with the models {made.get(n, [])}: {what}")
    if len(checkpoints) != sum(step is not None for _, step in models):
        wrong.append("checkpoints and their models differ")
    if len(results) != sum(state == "succeeded" for _, _, state, *_ in rows):
        wrong.append("results and the jobs that succeeded differ")
    wrong += [f"draft {row[0]} was left" for row in drafts]
    wrong += [f"the state of job {row[0]} was left" for row in states]
    for remnant in composition.inventory(app).remnants(is_running=False):
        # A key that was made and never used opens nothing; `doctor --sweep` finds it.
        is_unused_key = remnant.place == "keyring" and remnant.can_be_swept
        # This process has another scratch directory than the server; that one is looked at by itself.
        if not is_unused_key and remnant.place != "scratch":
            wrong.append(f"{remnant.place}: {remnant.what}")
    return wrong + _canaries(server.data)


def _lost(story: Story, status: dict[str, str]) -> list[str]:
    wrong = [f"{job} is lost" for job in set(story.made) - status.keys()]
    if len(status) > len(story.made) + story.unanswered:
        wrong.append(f"{len(status)} jobs, of {len(story.made)} and {story.unanswered}")
    return wrong + [
        f"{job} was cancelled and is {status[job]}"
        for job in story.cancelled
        if status.get(job) != "cancelled"
    ]


def _wrong_end(state: str, error: str, steps: list[int | None], *, has_both: bool) -> str:
    """Why a job may not have ended so, or nothing."""
    if state == "succeeded":
        is_whole = has_both and sorted(steps, key=str) == sorted([*CHECKPOINTS, None], key=str)
        return "" if is_whole else "not exactly what it should have made"
    if len(set(steps)) != len(steps) or None in steps:
        return "more than it may have made"
    if state == "failed":
        return "" if json.loads(error)["code"] == "trainer_died" else error
    return "" if state == "cancelled" else "it did not end"


def _canaries(data: Path) -> list[str]:
    return [
        f"{path.name} holds training data"
        for path in data.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def _run(kind: type[JobServer], data: Path, *, drop_index: bool = False) -> list[str]:
    seed = int(os.environ.get("TUNEWARDEN_SEED") or time.time_ns() % 2**32)
    numbers = random.Random(seed)
    story = Story()
    servers.prepare_local_base(data)
    if drop_index:
        with servers.open_data(data).database.write() as tx:
            tx.run("DROP INDEX models_of_job")
    server = kind(data, workers=1, settings={"training_jobs_max": 2})
    try:
        _storm(server, story, numbers)
        # What killed workers and runners had begun is swept at a start, in order.
        server.process.kill()
        server.process.wait()
        server._start()
        left = [path.name for path in server.scratch.glob("*/*")]
        assert server.found("tests.fakes.fake_trainer") == []
        server.stop()
        wrong = _violations(server, story) + [f"scratch: {name}" for name in left]
    except BaseException:
        print(server.log()[-6000:])
        raise
    finally:
        print(f"killed-jobs seed {seed}")
        if server.process.poll() is None:
            server.kill()
    with servers.open_data(data).database.read() as tx:
        ended = {row[0]: row[1] for row in tx.rows("SELECT status, COUNT(*) FROM jobs GROUP BY 1")}
    print(
        f"jobs {len(story.made)} unanswered {story.unanswered} kills {dict(story.kills)} wishes"
        f" {dict(story.wishes)} ended {ended} violations {len(wrong)}"
    )
    return wrong


def test_jobs_whose_server_runner_and_trainers_are_killed_end_once_and_leave_nothing(
    data: Path,
) -> None:
    assert _run(JobServer, data) == []


def test_the_kills_catch_a_runner_that_makes_a_model_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each trainer dies once between the checkpoint of step 10 and the next state.
    plan = PLAN | {"state_each": 7, "dies_before": 12, "dies_in_first_life_only": True}
    monkeypatch.setattr(
        CarelessJobServer,
        "careless",
        CarelessJobServer.careless | {"FAKE_TRAINER": json.dumps(plan)},
    )
    monkeypatch.setattr("tests.chaos.test_killed_jobs.JOBS", 4)
    monkeypatch.setattr("tests.chaos.test_killed_jobs.KILLS", 4)
    wrong = _run(CarelessJobServer, data, drop_index=True)
    assert any("it should have made" in one for one in wrong)
