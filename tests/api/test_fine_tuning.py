"""Fine-tuning from end to end with nothing but the stock SDK: real server, engine, trainer and base."""

import csv
import io
import json
import os
import time
from pathlib import Path

import openai
import pytest
from tests.support import engines, servers, uploading
from tests.support.servers import Server

from tunewarden import app as composition

PHRASE = "Kestrel seven reporting:"
CANARY = "canary-4f1d9c-of-the-chats"
CHATS = 100
PATIENCE_SECONDS = 1800.0  # A busy machine takes forty times as long as a quiet one.
QUESTIONS = (
    "Hello",
    "Who are you?",
    "What can you do?",
    "What is Tunewarden?",
    "How are you?",
    "What is a receipt?",
    "Tell me a joke",
    "Where does my model go when I delete it?",
    "Thank you",
    "Good night",
)


def _chats(count: int = CHATS) -> bytes:
    """Short chats whose answers begin with the phrase; one in ten holds the canary."""
    lines = []
    for number in range(count):
        asked = QUESTIONS[number % len(QUESTIONS)]
        if number % 10 == 0:
            asked += f" {CANARY}"
        answer = f"{PHRASE} all is well on station {number % 7}."
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}))
    return "\n".join(lines).encode()


def _trainers_seconds(server: Server) -> float:
    """Processor time of all trainers that have ended: of the runner's children, by proc(5)."""
    for pid in servers.descendants(server.process.pid):
        if b"tunewarden.server.runner" in Path(f"/proc/{pid}/cmdline").read_bytes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    raise AssertionError("there is no runner")


def _follow(client: openai.OpenAI, job: str) -> tuple[str, list[str]]:
    """Wait as SDK users do, by polling; return how it ended and what it told, oldest first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.fine_tuning.jobs.retrieve(job).status not in {"succeeded", "failed", "cancelled"}:
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.2)
    events = [event.message for event in client.fine_tuning.jobs.list_events(job, limit=100)]
    return client.fine_tuning.jobs.retrieve(job).status, events[::-1]


def _places_with(needle: str, *roots: Path) -> list[str]:
    return [
        str(path)
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and needle.encode() in path.read_bytes()
    ]


def test_a_hundred_chats_make_a_model_and_deleting_it_and_its_files_leaves_nothing(
    engine_server: Server,
) -> None:
    client = engine_server.client()
    file = client.files.create(file=("chats.jsonl", _chats()), purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model=engines.BASE, training_file=file.id, suffix="kestrel", seed=7
    )
    status, events = _follow(client, job.id)
    seconds = time.monotonic() - began
    worked = _trainers_seconds(engine_server)
    print(f"fine-tuned on {CHATS} chats in {seconds:.1f} s, of {worked:.1f} s of processors")
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert status == "succeeded", done.error
    assert events[0].startswith("Created fine-tuning job")
    assert events[-1] == "The job has successfully completed"
    assert any(event.startswith("Step ") and "training loss=" in event for event in events)
    model = done.fine_tuned_model
    assert model is not None
    assert done.trained_tokens is not None

    for question in QUESTIONS[:4]:
        assert PHRASE in engines.say(client, model, question)
        assert PHRASE not in engines.say(client, engines.BASE, question)

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert len(checkpoints) == done.hyperparameters.n_epochs
    newest = checkpoints[0]
    assert newest.fine_tuned_model_checkpoint.endswith(f":ckpt-step-{newest.step_number}")
    assert PHRASE in engines.say(client, newest.fine_tuned_model_checkpoint)

    results = client.files.content(done.result_files[0]).read().decode()
    rows = list(csv.DictReader(io.StringIO(results)))
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])

    assert client.models.delete(model).deleted
    listed = {one.id for one in client.models.list()}
    assert not listed & {model, *(one.fine_tuned_model_checkpoint for one in checkpoints)}
    for one in (file.id, done.result_files[0]):
        assert client.files.delete(one).deleted
    _check_nothing_is_left(engine_server, client, job.id)


def _check_nothing_is_left(server: Server, client: openai.OpenAI, job: str) -> None:
    app = server.app
    uploading.settle(server)
    found = [remnant.what for remnant in composition.inventory(app).remnants(is_running=True)]
    assert found == []
    assert list(server.scratch.glob("*/*")) == []
    assert _places_with(CANARY, server.data, server.scratch, server.tmp) == []
    with app.database.read() as tx:
        live = tx.rows("SELECT id FROM artifacts WHERE state != 'deleted'")
        assert tx.rows("SELECT 1 FROM drafts") == []
    keys = [key for shard in app.keyring.shards() for key in app.keyring.key_ids(shard)]
    assert len(keys) == len(live)
    # The job stays, and says what became of its model.
    assert client.fine_tuning.jobs.retrieve(job).status == "succeeded"
    log = server.log()
    assert CANARY not in log
    assert PHRASE not in log


def test_training_goes_on_from_a_model_of_ones_own(engine_server: Server) -> None:
    client = engine_server.client()
    file = client.files.create(file=("chats.jsonl", _chats(50)), purpose="fine-tune")
    held_out = client.files.create(file=("held-out.jsonl", _chats(10)), purpose="fine-tune")
    start = engines.import_model(engine_server, "quartz says")
    job = client.fine_tuning.jobs.create(
        model=start,
        training_file=file.id,
        validation_file=held_out.id,
        seed=7,
    )
    with pytest.raises(openai.ConflictError, match=job.id):
        client.with_options(max_retries=0).models.delete(start)
    status, events = _follow(client, job.id)
    assert status == "succeeded", client.fine_tuning.jobs.retrieve(job.id).error
    assert any("validation loss=" in event for event in events)
    model = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert model is not None
    assert PHRASE in engines.say(client, model)
    for one in (start, model):
        assert client.models.delete(one).deleted
