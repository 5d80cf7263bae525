"""SIGKILL at any moment: of a real server's processes, and of deletions in processes of their own.

I4 to I7: what was answered stays true, and everything else is either there and readable, or deleted.
"""

import http.client
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer, serving
from tests.support import bases, servers
from tests.support.servers import Reply

from tunewarden import app as composition
from tunewarden.app import open_app
from tunewarden.cli import forms
from tunewarden.cli.client import Client
from tunewarden.cli.transport import Http
from tunewarden.config import Config
from tunewarden.errors import Error
from tunewarden_receipts import receipt
from tunewarden_receipts.statement import BlobsErased, Deleted

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
WORKERS = 2
KILL_SECONDS = 300.0 if IS_LONG else 10.0
DELETE_SECONDS = 40.0
ENOUGH = 20
IMPORTERS, DELETERS = 1, 3
GIVES_UP_SHARE = 0.25
HARNESS = (sys.executable, "-m", "tests.chaos.killed_deletions")


@dataclass
class Story:
    """What clients did and were told."""

    wanted: list[str] = field(default_factory=list)  # models that may be deleted
    kept: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    acknowledged: dict[str, str] = field(default_factory=dict)  # model -> deletion
    receipts: dict[str, bytes] = field(default_factory=dict)
    suffixes: int = 0
    failed: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False


def _import_and_keep_some(server: FakeEngineServer, story: Story, adapter: Path) -> None:
    numbers = random.Random(1)
    while not story.is_over:
        story.suffixes += 1
        try:
            client = Client(Http(server.url, server.owner_key))
            made = forms.import_adapter(client, adapter, servers.LOCAL_BASE, f"s{story.suffixes}")[
                "id"
            ]
        except (Error, ValueError, OSError):
            time.sleep(0.05)  # not acknowledged: it may be there or not
            continue
        with story.lock:
            if numbers.random() < 0.2:
                story.kept.add(made)
            else:
                story.wanted.append(made)
        time.sleep(0.02)


def _delete(server: FakeEngineServer, story: Story, seed: str) -> None:
    numbers = random.Random(seed)
    while not story.is_over or story.wanted:
        with story.lock:
            model = story.wanted.pop() if story.wanted else None
            if model is not None:
                story.asked.add(model)
        if model is None:
            time.sleep(0.02)
            continue
        reply = _delete_one(server, model, gives_up=numbers.random() < GIVES_UP_SHARE)
        if reply is not None:
            if reply.status != 200:
                story.failed.append(f"{model}: {reply.status} {reply.body!r}")
                continue
            story.acknowledged[model] = str(reply.header("tunewarden-deletion"))


def _delete_one(server: FakeEngineServer, model: str, *, gives_up: bool) -> Reply | None:
    """Delete as an SDK does that never loses patience, or that gives up at once."""
    until = time.monotonic() + DELETE_SECONDS
    for attempt in range(10_000):
        headers = {"x-stainless-retry-count": str(min(attempt, 9999))}
        try:
            path = f"/v1/models/{model}"
            reply = server.request("DELETE", path, key=server.owner_key, headers=headers)
            if reply.status < 500:
                return reply
        except (OSError, http.client.HTTPException):
            pass
        if gives_up:
            return None
        if time.monotonic() > until:
            return Reply(0, [], b"no answer in time")
        time.sleep(0.03)
    raise AssertionError


def _kill(server: FakeEngineServer, story: Story, numbers: random.Random) -> None:
    what = numbers.choice(["worker", "worker", "runner", "engine", "supervisor"])
    found = {
        "worker": "tunewarden.server.worker",
        "runner": "tunewarden.server.runner",
        "engine": "tests.fakes.engine_server",
    }
    if what == "supervisor":
        server.process.kill()
        server.process.wait()
        server._start()
        _check_acknowledged(server, story)
    else:
        pids = [p for p in servers.descendants(server.process.pid) if _runs(p, found[what])]
        if not pids:
            return
        os.kill(numbers.choice(pids), signal.SIGKILL)
    story.kills[what] += 1


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _check_acknowledged(server: FakeEngineServer, story: Story) -> None:
    """What was answered 200 is deleted, and its receipt is the same bytes as ever."""
    key = server.get("/.well-known/tunewarden-log-key").body
    for model, deletion in list(story.acknowledged.items()):
        found = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key)
        assert found.status == 200
        if story.receipts.setdefault(deletion, found.body) is found.body:
            verified = receipt.verify(found.body, key)
            assert verified.disclosed is not None
            assert isinstance(verified.facts, Deleted)
            named = verified.facts.deletion_id, verified.disclosed.artifact_id
            assert named == (deletion, model)
        assert story.receipts[deletion] == found.body, "a receipt changed"


def _check_all(server: FakeEngineServer, story: Story) -> int:
    """Every model is active and answers, or is deleted; return how many are active."""
    servers.wait_until(server.has_engine, "the engine answers")
    servers.wait_until(
        lambda: (
            not server.app.database.peek(
                "SELECT 1 FROM deletions WHERE blobs_erased_at IS NULL LIMIT 1"
            )
        ),
        "every deletion comes to its end",
        30,
    )
    _check_acknowledged(server, story)
    with server.app.database.read() as tx:
        rows = tx.rows("SELECT a.id, a.state FROM artifacts a JOIN models m ON m.n = a.n")
        assert tx.rows("SELECT 1 FROM drafts") == []
    states = {str(model): str(state) for model, state in rows}
    assert set(states.values()) <= {"active", "deleted"}
    suffixes = {model.split(":")[3] for model in states}
    assert len(suffixes) == len(rows), "an import was doubled"
    assert story.acknowledged.keys() | story.kept | story.asked <= states.keys(), "a model is lost"
    assert {states[model] for model in story.acknowledged} <= {"deleted"}
    assert {states[model] for model in story.kept} <= {"active"}
    active = [model for model, state in states.items() if state == "active"]
    for model in active:
        said = server.post("/v1/chat/completions", {"model": model, "messages": []})
        assert said.status == 200, said.body
        assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 200
    for model in states.keys() - set(active):
        assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 404
    listed = server.get("/v1/models", key=server.owner_key).json["data"]
    assert isinstance(listed, list)
    assert {one["id"] for one in listed} == {servers.LOCAL_BASE, *active}
    return len(active)


def _check_leaves_and_remnants(data: Path) -> int:
    """With the server stopped: one leaf for each deletion, one for its blobs, and nothing left over."""
    app = open_app(Config(data=data, scratch=data.parent, scratch_may_be_a_disk=True))
    log, signer = app.open_log()
    leaves = Counter(
        (type(facts).__name__, facts.deletion_id)
        for facts in (receipt.verify_entry(one, signer.public_pem()) for _, one in log.entries())
        if isinstance(facts, Deleted | BlobsErased)
    )
    assert set(leaves.values()) <= {1}, "a deletion has two leaves"
    with app.database.read() as tx:
        deletions = {str(row[0]) for row in tx.rows("SELECT id FROM deletions")}
    assert {deletion for _, deletion in leaves} == deletions
    assert len(leaves) == 2 * len(deletions)
    composition.inventory(app).sweep()
    assert list(composition.inventory(app).remnants(is_running=False)) == []
    return len(deletions)


def test_a_server_whose_processes_are_killed_at_random_keeps_its_word(data: Path) -> None:
    seed = time.time_ns() % 2**32
    numbers = random.Random(seed)
    story = Story()
    with serving(data, workers=WORKERS) as server:
        adapter = bases.adapter().write(data.parent / "adapter")
        threads = [threading.Thread(target=_import_and_keep_some, args=(server, story, adapter))]
        threads += [
            threading.Thread(target=_delete, args=(server, story, f"{seed} {number}"))
            for number in range(DELETERS)
        ]
        for thread in threads:
            thread.start()
        try:
            began = time.monotonic()
            # A busy machine gets longer, so that there is enough to judge.
            while time.monotonic() < began + KILL_SECONDS or (
                len(story.acknowledged) < ENOUGH and time.monotonic() < began + 6 * KILL_SECONDS
            ):
                time.sleep(numbers.random() * 0.5)
                _kill(server, story, numbers)
        finally:
            story.is_over = True
            for thread in threads:
                thread.join(DELETE_SECONDS + 5)
        assert story.failed == []
        assert len(story.acknowledged) >= ENOUGH, "too little was deleted to say anything"
        server.process.kill()
        server.process.wait()
        server._start()
        active = _check_all(server, story)
        servers.wait_until(lambda: not list(server.scratch.glob("*/*")), "scratch is empty")
        server.stop()
        deletions = _check_leaves_and_remnants(data)
    print(
        f"kill-nine seed {seed} kills {dict(story.kills)} imports-asked {story.suffixes}"
        f" deletes-asked {len(story.asked)} acknowledged {len(story.acknowledged)}"
        f" deletions {deletions} active-and-answering {active}: nothing lost, nothing doubled"
    )


def _harness(mode: str, kills: int) -> dict[str, int]:
    done = subprocess.run(
        [*HARNESS, mode, "--kills", str(kills)],
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    print(done.stdout, end="")
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: int(count) for name, count in re.findall(r"([a-z-]+) (\d+)\b", done.stdout)}


def test_a_deletion_that_is_killed_at_any_moment_is_finished_or_never_was() -> None:
    counts = _harness("server", 10_000 if IS_LONG else 200)
    assert counts["kills"] >= (10_000 if IS_LONG else 200)
    assert counts["deleted"] >= counts["kills"] // 10, "too little was deleted to say anything"


@pytest.mark.parametrize("control", ["acknowledges-early", "does-not-recover"])
def test_the_kills_catch_a_server_that_does_it_wrong(control: str) -> None:
    counts = _harness(control, 1000)
    assert counts["resurrected"] + counts["half-deleted"] + counts["other-receipts"] > 0
