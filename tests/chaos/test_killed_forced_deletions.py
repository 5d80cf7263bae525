"""SIGKILL of a whole server while a forced deletion waits for the trainer of a job that it cancelled.

Once the deletion is committed the job is cancelled and the file is gone, whatever is killed; nothing of either is left.
"""

import json
import os
import random
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

import openai
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import jobs, servers

from tunewarden import app as composition
from tunewarden.app import open_app
from tunewarden.config import Config

ROUNDS = 30 if os.environ.get("TUNEWARDEN_TORTURE") else 3
CANARY = "chat-canary-of-forced-deletions"
TRAINER = "tests.fakes.fake_trainer"
# From the request to the kill: about as long as a forced deletion takes.
KILL_SECONDS_MAX = 0.5


class SlowTrainerServer(FakeEngineServer):
    """Everything real but the engine and the trainers: these take a minute for a job."""

    program: ClassVar[str] = "tests.fakes.with_fake_trainer"
    careless: ClassVar[dict[str, str]] = {
        "FAKE_TRAINER": json.dumps({"steps": 600, "step_seconds": 0.1, "checkpoints": [2]})
    }


def _training(server: SlowTrainerServer) -> tuple[str, str]:
    """Return the ids of a job whose trainer has made a checkpoint, and of its file."""
    client = server.client(max_retries=0)
    chats = jobs.chats(12, canary=CANARY)
    file = client.files.create(file=("chats.jsonl", chats), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=servers.LOCAL_BASE, training_file=file.id)
    made = client.fine_tuning.jobs.checkpoints
    servers.wait_until(lambda: made.list(job.id).data, "a checkpoint")
    return job.id, file.id


def _delete(server: SlowTrainerServer, file: str) -> None:
    # Without an answer it is committed or not.
    with suppress(openai.APIConnectionError, openai.InternalServerError):
        server.client(max_retries=0, timeout=20).files.delete(file, extra_query={"force": True})


def _deletion_of(server: SlowTrainerServer, file: str) -> tuple[bool, bool]:
    """Return whether a deletion of the file is committed, and whether it is done (D8)."""
    row = server.app.database.peek(
        "SELECT d.deleted_at FROM deletions d JOIN artifacts a ON a.n = d.artifact_n WHERE a.id = :id",
        id=file,
    )
    return row is not None, row is not None and row[0] is not None


def _is_done(server: SlowTrainerServer, file: str) -> bool:
    return _deletion_of(server, file)[1]


def test_a_forced_deletion_that_was_committed_ends_whatever_was_killed(data: Path) -> None:
    seed = int(os.environ.get("TUNEWARDEN_SEED") or time.time_ns() % 2**32)
    numbers = random.Random(seed)
    counts = {"refused by the kill": 0, "committed, not done": 0, "done": 0}
    servers.prepare_local_base(data)
    server = SlowTrainerServer(data, workers=1)
    try:
        for _ in range(ROUNDS):
            job, file = _training(server)
            asking = threading.Thread(target=_delete, args=[server, file])
            asking.start()
            time.sleep(numbers.random() * KILL_SECONDS_MAX)
            server.process.kill()
            server.process.wait()
            asking.join()
            is_committed, is_done = _deletion_of(server, file)
            state = "done" if is_done else "committed, not done"
            counts[state if is_committed else "refused by the kill"] += 1
            server._start()
            client = server.client()
            if not is_committed:
                assert client.fine_tuning.jobs.retrieve(job).status != "cancelled"
                assert client.files.delete(file, extra_query={"force": True}).deleted
            servers.wait_until(partial(_is_done, server, file), "it is deleted")
            assert client.fine_tuning.jobs.retrieve(job).status == "cancelled"
            assert not server.running(TRAINER)
        assert not list(server.scratch.glob("*/*"))
        server.stop()
    finally:
        print(f"killed-forced-deletions seed {seed} rounds {ROUNDS}: {counts}")
        if server.process.poll() is None:
            server.kill()
    app = open_app(Config(data=data, scratch=data.parent, scratch_may_be_a_disk=True))
    remnants = composition.inventory(app).remnants(is_running=False)
    assert [one.what for one in remnants if one.place not in {"scratch", "keyring"}] == []
    assert [
        path.name
        for path in data.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ] == []
