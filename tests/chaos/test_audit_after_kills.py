"""SIGKILL of all of a server's processes right behind an answer: whatever was answered 200 is in the audit log."""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from tests.chaos.fake_engine_server import REPOSITORY, FakeEngineServer
from tests.lab import budgets
from tests.support import administration, servers

from tunewarden.transparency.audit_verification import Verification

KILLS = budgets.count(8, 40)
CLIENTS = 4
PATIENCE_SECONDS = 1.0
UPLOAD = {"bytes": 1, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}


class LateAudit(FakeEngineServer):
    """Its events are written after the answer."""

    careless: ClassVar[dict[str, str]] = {
        "PYTHONPATH": str(REPOSITORY / "tests" / "fakes" / "late_audit")
    }


@dataclass
class Story:
    """The requests that were answered 200, by their ids."""

    answered: dict[str, str] = field(default_factory=dict)
    fresh: threading.Event = field(default_factory=threading.Event)
    is_over: bool = False


def _act(server: FakeEngineServer, story: Story, admin_key: str, seed: str) -> None:
    numbers = random.Random(seed)
    made: list[str] = []
    while not story.is_over:
        path, fields = "/v1/uploads", UPLOAD
        if numbers.random() < 0.3:
            path, fields = "/v1/organization/projects", {"name": "p"}
        elif made and numbers.random() < 0.5:
            path, fields = f"/v1/uploads/{made.pop()}/cancel", {}
        key = admin_key if "organization" in path else server.owner_key
        try:
            reply = server.post(path, fields, key=key)
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.02)
            continue
        if reply.status == 200:
            story.answered[str(reply.header("x-request-id"))] = path
            story.fresh.set()
            if path == "/v1/uploads":
                made.append(json.loads(reply.body)["id"])


def _kill(server: FakeEngineServer) -> None:
    """Kill everything at once, the supervisor first, so that nobody restarts anything."""
    for pid in server.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()


def _lost(data: Path, kind: type[FakeEngineServer], seed: int) -> tuple[int, int, int]:
    """Kill a server many times right behind an answer; return how many answers were lost, of how many, and kills."""
    numbers = random.Random(seed)
    story = Story()
    servers.prepare_local_base(data)
    server = kind(data, workers=2)
    admin_key = administration.make_admin_key(server.app)
    threads = [
        threading.Thread(target=_act, args=(server, story, admin_key, f"{seed} {n}"))
        for n in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            time.sleep(numbers.random() * PATIENCE_SECONDS)
            story.fresh.clear()
            assert story.fresh.wait(30), server.log()
            _kill(server)
            server._start()
    finally:
        story.is_over = True
        for thread in threads:
            thread.join(60)
    _kill(server)
    app = servers.open_data(data)
    with app.database.read() as tx:
        rows = tx.rows("SELECT DISTINCT request_id FROM audit_events WHERE request_id IS NOT NULL")
    assert list(Verification(app.database, app.open_log()[0]).problems()) == []
    lost = story.answered.keys() - {str(row[0]) for row in rows}
    return len(lost), len(story.answered), KILLS


def test_no_kill_right_behind_a_200_loses_an_event(data: Path) -> None:
    seed = budgets.new_seed()
    lost, answered, kills = _lost(data, FakeEngineServer, seed)
    print(f"audit-after-kills seed {seed} kills {kills} answered {answered} events lost {lost}")
    assert lost == 0
    assert answered > kills * 10, "too little was answered to say anything"


def test_control_events_that_are_written_after_the_answer_are_lost(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.test_audit_after_kills.KILLS", 4)
    seed = budgets.new_seed()
    lost, answered, kills = _lost(data, LateAudit, seed)
    print(
        f"audit-after-kills late seed {seed} kills {kills} answered {answered} events lost {lost}"
    )
    assert lost > 0
