"""What tests of migrations share: an organization at OpenAI, as its stand-in has it, and the commands."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import openai
from openai.types.fine_tuning import FineTuningJob
from tests.cli import in_process
from tests.fakes.openai_source import KEY, OpenAI
from tests.support import servers
from tests.support.servers import Server

from tunewarden.migration import retrain
from tunewarden.migration.state import State

BASE = "gpt-4o-mini-2024-07-18"
OLD_BASE = "gpt-3.5-turbo-0613"
FIRST = f"ft:{BASE}:acme:support:AbCd1234"
SECOND = f"ft:{BASE}:acme::EfGh5678"
GONE = f"ft:{OLD_BASE}:acme::8J6LXhXG"
# Steps that ask the source nothing.
WITHOUT_SOURCE = frozenset({"retrain", "compare", "switch", "rollback"})
PROMPT_CANARY = "canary-in-a-prompt"
ANSWER_CANARY = "canary-in-an-answer"


class WithFakeTrainer(servers.WithoutTorch):
    """Everything real but the engine and the trainers."""

    program: ClassVar[str] = "tests.fakes.with_fake_trainer"


def chat(number: int) -> bytes:
    """Return one line of training data, with what a job may have beside the messages."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"{PROMPT_CANARY} {number}"},
        {"role": "assistant", "content": f"{ANSWER_CANARY} {number}", "weight": 1},
    ]
    return json.dumps({"messages": messages}).encode() + b"\n"


def chats(count: int, *, first: int = 0) -> bytes:
    return b"".join(chat(number) for number in range(first, first + count))


def acme() -> OpenAI:
    """Two models that answer, a chain of jobs, and one whose base, file and model are gone."""
    has = OpenAI()
    has.models = [BASE, "gpt-4.1-2025-04-14", FIRST, SECOND]
    training, validation = has.add_file(chats(12)), has.add_file(chats(3, first=100))
    results = has.add_file(b"step,train_loss\n1,2.5\n", purpose="fine-tune-results")
    first = has.add_job(
        FIRST,
        BASE,
        training,
        validation_file=validation,
        result_files=[results],
        user_provided_suffix="support",
    )
    has.add_job(SECOND, FIRST, training, seed=7)
    expired = has.add_file(chats(2), expires_at=1_735_000_000, filename="old.jsonl")
    has.add_job(GONE, OLD_BASE, "file-deleted", validation_file=expired, created_at=1_690_000_000)
    metrics = {"step": 10.0, "train_loss": 0.9}
    has.checkpoints[first] = [
        {
            "object": "fine_tuning.job.checkpoint",
            "id": "ftckpt_zc4Q7MP6XxulcVzj4MZdwsAB",
            "created_at": 1_731_001_000,
            "fine_tuned_model_checkpoint": f"{FIRST}:ckpt-step-10",
            "fine_tuning_job_id": first,
            "metrics": metrics,
            "step_number": 10,
        }
    ]
    return has


def trained(
    client: openai.OpenAI,
    suffix: str,
    model: str = servers.LOCAL_BASE,
    *,
    seconds: float = servers.WAIT_SECONDS,
) -> FineTuningJob:
    """Make a model by a job with training and validation data."""
    training = client.files.create(file=("chats.jsonl", chats(12)), purpose="fine-tune")
    validation = client.files.create(
        file=("held-out.jsonl", chats(4, first=50)), purpose="fine-tune"
    )
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=training.id,
        validation_file=validation.id,
        suffix=suffix,
        seed=3,
    )

    def ended() -> bool:
        return client.fine_tuning.jobs.retrieve(job.id).finished_at is not None

    servers.wait_until(ended, "the job has ended", seconds)
    return client.fine_tuning.jobs.retrieve(job.id)


@dataclass(frozen=True, slots=True)
class Moving:
    """One migration: its source, its state, and where it goes."""

    url: str
    key_file: Path
    state: Path
    settings: Mapping[str, str]

    def options(self, step: str, *more: str) -> list[str]:
        """Return the command line of a step."""
        source = ["--source-url", self.url, "--source-key-file", str(self.key_file)]
        if step in WITHOUT_SOURCE:
            source = []
        return ["migrate", "openai", step, *source, "--state", str(self.state), *more]

    def run(self, step: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a step in this process."""
        return in_process.run_cli(*self.options(step, *more), settings=self.settings)

    def start(self, step: str, *more: str) -> subprocess.Popen[bytes]:
        """Start a step in a process of its own, which a test may kill."""
        command = [sys.executable, "-m", "tunewarden", *self.options(step, *more)]
        environment = servers.environment({}) | dict(self.settings)
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def noted(self, name: str) -> dict[str, object]:
        """Return a file of the state directory."""
        read = json.loads((self.state / f"{name}.json").read_text())
        assert isinstance(read, dict)
        return read


def moving(
    directory: Path, url: str, *, key: str = KEY, settings: Mapping[str, str] | None = None
) -> Moving:
    """Return a migration that begins in a directory."""
    key_file = directory / "source.key"
    key_file.write_text(f"{key}\n")
    key_file.chmod(0o600)
    return Moving(url, key_file, directory / "state", settings or {})


def note_made_again(moving: Moving, job: str, model: str) -> None:
    """Note that a job of the source was made again, as `retrain` does."""
    entry = {"job": "ftjob-here", "status": "succeeded", "model": model}
    State(moving.state, moving.url).write(retrain.NAME, {"jobs": {job: entry}})


def answer_notes(moving: Moving) -> list[dict[str, Any]]:
    """What the state says of recorded answers, model by model."""
    return [json.loads(path.read_text()) for path in moving.state.glob("answers-*.json")]


def answers(server: Server, moving: Moving) -> list[dict[str, Any]]:
    """Every recorded answer, from the sealed files that the state names."""
    client = server.client()
    files = [file for noted in answer_notes(moving) for file in noted["files"]]
    contents = [client.files.content(file).read() for file in files]
    return [json.loads(line) for content in contents for line in content.splitlines()]


def files_with(needles: Sequence[str], *roots: Path) -> list[Path]:
    """Return the files below these places that have any of the texts in the plain."""
    paths = [path for root in roots for path in root.rglob("*") if path.is_file()]
    found = []
    for path in paths:
        # Blobs are erased in the background.
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            if any(needle.encode() in content for needle in needles):
                found.append(path)
    return found


def pairs(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the table of two columns that a command printed."""
    return {row[0]: row[1] for row in lines(ran)}


def lines(ran: subprocess.CompletedProcess[str]) -> Sequence[Sequence[str]]:
    """Return the table that a command printed."""
    return [line.split("\t") for line in ran.stdout.splitlines()]
