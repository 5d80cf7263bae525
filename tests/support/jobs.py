"""Fine-tuning jobs on the tests' tiny base with the trainer's stand-in, without a server."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from tests.support import servers

from tunewarden import app as composition
from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.finetuning import creation, jobs, runner, trainer_process, training, transitions
from tunewarden.finetuning.jobs import Job
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller
from tunewarden.registry.files import Owner

FAKE = "tests.fakes.fake_trainer"
CANARY = "training-data-canary"
DONE_SECONDS = 30.0


def chats(count: int = 12, *, canary: str = CANARY) -> bytes:
    """Return a valid training file."""
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": canary}]
    return (json.dumps({"messages": turns}) + "\n").encode() * count


class Workplace:
    """A data directory, and what a client and a runner do on it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        (directory / "scratch").mkdir(parents=True)
        self.config = Config(
            data=directory / "data",
            scratch=directory / "scratch",
            scratch_may_be_a_disk=True,
            **settings,
        )
        servers.prepare_local_base(self.config.data)
        self.app: App = open_app(self.config)
        self.key = self.config.owner_key.read_text().strip()

    @property
    def caller(self) -> Caller:
        return keys.authenticate(self.app.database, self.key, "req_test")

    def project(self, name: str) -> Caller:
        """The same caller in another project."""
        caller = replace(self.caller, project_id=name)
        with self.app.database.write() as tx:
            tx.run(
                "INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES (:id, :organization, :id, 0, 0) ON CONFLICT DO NOTHING",
                id=name,
                organization=caller.organization_id,
            )
        return caller

    def file(self, content: bytes | None = None, caller: Caller | None = None) -> str:
        caller = caller or self.caller
        return self.app.files.store(
            Owner(caller.organization_id, caller.project_id, caller.key_id),
            filename="chats.jsonl",
            purpose="fine-tune",
            reader=BytesIO(chats() if content is None else content),
        ).id

    def job(
        self,
        training: str | None = None,
        caller: Caller | None = None,
        **fields: object,
    ) -> Job:
        caller = caller or self.caller
        asked = creation.parse(
            {
                "model": servers.LOCAL_BASE,
                "training_file": training or self.file(caller=caller),
                **fields,
            }
        )
        return creation.create(
            self.app.database,
            self.app.memory,
            self.app.keyring,
            self.app.drafts.quota,
            caller,
            asked,
        ).job

    def validated(self, *some: Job) -> None:
        """Let jobs wait for their turn, as if their files had been read."""
        with self.app.database.write() as tx:
            for job in some:
                assert transitions.validated(tx, job)

    def now(self, job: Job) -> Job:
        with self.app.database.read() as tx:
            return jobs.by_n(tx, job.n)

    def events(self, job: Job) -> list[str]:
        with self.app.database.read() as tx:
            rows = tx.rows("SELECT message FROM job_events WHERE job_n = :n ORDER BY n", n=job.n)
        return [row[0] for row in rows]

    def models_of(self, job: Job) -> list[int | None]:
        """The steps of the job's models; None is the final one."""
        with self.app.database.read() as tx:
            rows = tx.rows("SELECT step FROM models WHERE job_n = :n ORDER BY n", n=job.n)
        return [row[0] for row in rows]

    def is_finished(self, job: Job) -> bool:
        return self.now(job).finished_at is not None

    def finished(self, *some: Job, seconds: float = DONE_SECONDS) -> Job:
        """Wait until jobs are finished; return the first one as it is then."""
        servers.wait_until(
            lambda: all(self.is_finished(job) for job in some), "jobs are finished", seconds
        )
        return self.now(some[0])

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have a runner work for a block, then stop it as the server does."""
        stop = threading.Event()
        parts = composition.training(self.app)
        thread = threading.Thread(target=runner.run, args=(parts, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def remnants(self) -> list[str]:
        """What should not be there when nothing runs."""
        found = composition.inventory(self.app).remnants(is_running=False)
        return [f"{remnant.place}: {remnant.what}" for remnant in found]


def use_fake_trainer(monkeypatch: pytest.MonkeyPatch, **plan: object) -> None:
    """Have the trainer's stand-in run, as `plan` says (see `fake_trainer.Plan`)."""
    monkeypatch.setattr(trainer_process, "TRAINER", FAKE)
    monkeypatch.setattr(training, "RETRY_SECONDS", 0.05)
    monkeypatch.setenv("FAKE_TRAINER", json.dumps(plan))
