"""A whole move between two servers with real training: killed at each step, over connections that break.

Source and target have the demo's base on the real embedded engine; files, jobs and answers are real. No job of the
source has two here, and no text of the data or of an answer is anywhere but sealed.
"""

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError
from openai.types.fine_tuning import FineTuningJob
from tests.chaos.test_killed_migrations import Killer
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support import engines, migrations
from tests.support.migrations import ANSWER_CANARY, PROMPT_CANARY, Moving
from tests.support.servers import Server

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
# At which piece of a request or an answer a step is killed.
KILLS = range(1, 24) if IS_LONG else (2, 7)
# A step that lost an answer for good is run again, as its message says.
RUNS_MAX = 3
STEPS: dict[str, tuple[str, ...]] = {
    "inventory": (),
    "download": (),
    "record": ("--yes", "--max-tokens", "48"),
    "retrain": ("--map", f"{engines.BASE}={engines.BASE}"),
    "compare": (),
    "switch": (),
    "rollback": (),
}
ASKED: Any = [{"role": "user", "content": "Hello"}]
# Of one command; training takes most of it.
STEP_SECONDS = 300
# Of an answer: shorter ones are in other texts too.
NEEDLE_LENGTH = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with engines.serving(tmp_path_factory.mktemp("source") / "data", workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with engines.serving(tmp_path_factory.mktemp("target") / "data", workers=1) as running:
        yield running


@dataclass
class Journey:
    """One move, whose commands are killed and whose connections break on the way."""

    moving: Moving
    near: CuttingProxy
    far: CuttingProxy
    kills: int = 0
    cuts: int = 0
    said: bytes = b""

    def step(self, name: str, *options: str) -> None:
        """Kill a step at some pieces; then let it go on over connections each of which loses an answer."""
        for at in KILLS:
            killer = Killer(at)
            self.near.on_piece = self.far.on_piece = killer.on_piece
            killer.process = process = self.moving.start(name, *options)
            self.kills += self._ended(process) < 0
            killer.process = None
        for proxy in (self.near, self.far):
            proxy.lose, proxy.skip, proxy.after_bytes = 1, 1, 40
        for _ in range(RUNS_MAX):
            if self._ended(self.moving.start(name, *options)) == 0:
                break
        else:
            raise AssertionError(f"{name}: {self.said.decode()}")
        self.cuts += 2 - self.near.lose - self.far.lose
        self.near.lose = self.far.lose = 0

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        _, said = process.communicate(timeout=STEP_SECONDS)
        self.said += said
        return process.returncode


@pytest.fixture(scope="module")
def journey(
    source: Server, target: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Journey]:
    directory = tmp_path_factory.mktemp("journey")
    (directory / "tmp").mkdir()
    with CuttingProxy(source.address) as near, CuttingProxy(target.address) as far:
        settings = {
            "OPENAI_BASE_URL": far.url,
            "OPENAI_API_KEY": target.owner_key,
            "TMPDIR": str(directory / "tmp"),
        }
        moving = migrations.moving(directory, near.url, key=source.owner_key, settings=settings)
        yield Journey(moving, near, far)


def _chain(source: Server) -> list[FineTuningJob]:
    """Train two models at the source, the second one on from the first."""
    client = source.client()
    first = migrations.trained(client, "first", engines.BASE, seconds=STEP_SECONDS)
    assert first.fine_tuned_model is not None, first.error
    second = migrations.trained(client, "second", first.fine_tuned_model, seconds=STEP_SECONDS)
    assert second.fine_tuned_model is not None, second.error
    return [first, second]


def _made(target: Server) -> Counter[str]:
    """Return how many jobs the target has of each of the source."""
    jobs = target.client().fine_tuning.jobs.list()
    return Counter(one.metadata["source_job"] for one in jobs if one.metadata)


def _answer_texts(target: Server, moving: Moving) -> set[str]:
    """Return what the source's models said, from the sealed files."""
    found = migrations.answers(target, moving)
    texts = {one["response"]["choices"][0]["message"]["content"] for one in found}
    long = {text for text in texts if len(text) >= NEEDLE_LENGTH}
    assert long, f"too short to be looked for: {texts}"
    return long


def _plain(needles: Iterable[str], journey: Journey, *servers: Server) -> list[Path]:
    """Return the files that have any of the texts: data, logs, temporary files, tmpfs, the command's own."""
    roots = [journey.moving.state.parent]
    for server in servers:
        roots += [server.data.parent, server.scratch]
    found = migrations.files_with(list(needles), *roots)
    # The demo's base has answers of its own, among its public weights.
    return [path for path in found if "base" not in path.parts]


def test_a_whole_move_is_done_once_and_leaves_no_text(
    source: Server, target: Server, journey: Journey
) -> None:
    jobs = _chain(source)
    olds = [str(job.fine_tuned_model) for job in jobs]
    for name, options in STEPS.items():
        journey.step(name, *options)
    assert _made(target) == {job.id: 1 for job in jobs}, "a job was made twice"
    aliases = target.get("/v1/aliases", key=target.owner_key).json["data"]
    assert aliases == [], "rolled back"
    texts = _answer_texts(target, journey.moving)
    journey.step("switch")
    asked: Any = {"messages": ASKED, "temperature": 0, "max_tokens": 24}
    for old in olds:
        assert target.client().chat.completions.create(model=old, **asked).choices
    journey.step("delete-source", "--yes")
    for job, old in zip(jobs, olds, strict=True):
        for find in (
            lambda old=old: source.client().models.retrieve(old),
            lambda job=job: source.client().files.retrieve(job.training_file),
        ):
            with pytest.raises(NotFoundError):
                find()
    told = json.loads((journey.moving.state / "deletions.json").read_text())
    assert all(any(key.endswith(old) for key in told["answers"]) for old in olds)
    needles = {PROMPT_CANARY, ANSWER_CANARY, *texts}
    assert _plain(needles, journey, source, target) == []
    assert _plain([jobs[0].id], journey), "what stands there is found"
    assert not any(needle.encode() in journey.said for needle in needles)
    _erase(target, journey, jobs)
    assert _plain(needles, journey, source, target) == []
    print(f"whole-migrations kills {journey.kills} cuts {journey.cuts} violations 0")
    assert journey.kills >= len(STEPS)
    assert journey.cuts >= len(STEPS)


def _erase(target: Server, journey: Journey, jobs: Sequence[FineTuningJob]) -> None:
    """Erase the training file here: models, recorded answers and reports go along, and the old ids are free."""
    client, moving = target.client(), journey.moving
    saved: Any = moving.noted("downloads")["files"]
    made: Any = moving.noted("retrain")["jobs"]
    files = {
        name
        for path in (*moving.state.glob("answers-*.json"), *moving.state.glob("comparison-*.json"))
        for name in json.loads(path.read_text())["files"]
    }
    assert len(files) >= 2 * len(jobs)
    training = {saved[job.training_file]["file"] for job in jobs}
    for file in training:
        options: Any = {"extra_query": {"cascade": "models", "force": "true"}}
        assert client.files.delete(file, **options).deleted
    for name in files:
        with pytest.raises(NotFoundError):
            client.files.content(name)
    for one in made.values():
        with pytest.raises(NotFoundError):
            client.models.retrieve(one["model"])
