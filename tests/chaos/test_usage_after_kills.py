"""SIGKILL of workers under load: usage loses at most the last second of theirs, and counts nothing twice."""

import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer, serving
from tests.support.servers import wait_until

from tunewarden.registry.usage import DAY, HOUR, MINUTE

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
WORKERS = 2
ROUNDS = 40 if IS_LONG else 5
CLIENTS = 4
# The flush of each second, and what it and a kill take on a busy machine.
LOST_SECONDS = 1.0 + 0.5
SETTLE_SECONDS = 2.5
SEED = random.SystemRandom().randrange(2**32)


@dataclass
class Clients:
    """What clients sent until they were stopped: when each whole answer came, and how many requests got none."""

    answered: list[float] = field(default_factory=list)
    unanswered: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_over: bool = False


@dataclass(frozen=True)
class Round:
    """One round; `counted` of the answers are in the rows, and the last window before the kill had `late`."""

    answered: int
    unanswered: int
    late: int
    counted: int

    @property
    def lost(self) -> int:
        return self.answered - self.counted

    @property
    def is_right(self) -> bool:
        return self.lost <= self.late and self.counted <= self.answered + self.unanswered


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngineServer]:
    with serving(tmp_path_factory.mktemp("killed") / "data", workers=WORKERS) as running:
        yield running


def _ask(server: FakeEngineServer, body: bytes, seen: Clients) -> None:
    """Send requests, each on a connection of its own, so that they reach every worker."""
    host, port = server.address
    headers = {"authorization": f"Bearer {server.owner_key}", "content-type": "application/json"}
    while not seen.is_over:
        connection = http.client.HTTPConnection(host, port, timeout=20)
        is_sent = is_whole = False
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            is_sent = True
            reply = connection.getresponse()
            is_whole = bool(reply.read()) and reply.status == 200
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        with seen.lock:
            if is_whole:
                seen.answered.append(time.monotonic())
            elif is_sent:
                seen.unanswered += 1


def _counted(server: FakeEngineServer) -> int:
    rows = {
        seconds: server.app.database.peek(
            "SELECT COALESCE(SUM(requests), 0) FROM usage WHERE seconds = :seconds", seconds=seconds
        )
        for seconds in (MINUTE, HOUR, DAY)
    }
    found = {row[0] for row in rows.values() if row is not None}
    assert len(found) == 1, "minutes, hours and days are written together"
    return int(found.pop())


@contextmanager
def _asking(server: FakeEngineServer, body: bytes) -> Iterator[Clients]:
    seen = Clients()
    threads = [
        threading.Thread(target=_ask, args=(server, body, seen), daemon=True)
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.is_over = True
        for thread in threads:
            thread.join(30)


def _round(
    server: FakeEngineServer,
    body: bytes,
    numbers: random.Random,
    kill: Callable[[], None],
) -> Round:
    before = _counted(server)
    with _asking(server, body) as seen:
        time.sleep(2.0 + numbers.random())
        kill()
        killed_at = time.monotonic()
        time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)
    late = sum(killed_at - LOST_SECONDS <= at for at in seen.answered)
    wait_until(lambda: len(server.workers()) == WORKERS, "a killed worker was replaced")
    return Round(len(seen.answered), seen.unanswered, late, _counted(server) - before)


def _kill(server: FakeEngineServer, count: int, numbers: random.Random) -> None:
    for pid in numbers.sample(sorted(server.workers()), count):
        os.kill(pid, signal.SIGKILL)


def _body(server: FakeEngineServer) -> bytes:
    model = server.make_model().id
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).encode()


def test_a_killed_worker_takes_along_no_more_than_its_last_second(server: FakeEngineServer) -> None:
    numbers, body = random.Random(SEED), _body(server)
    found = []
    for _ in range(ROUNDS):
        count = numbers.choice([1, WORKERS])
        found.append(_round(server, body, numbers, partial(_kill, server, count, numbers)))
    answered, lost = sum(one.answered for one in found), sum(one.lost for one in found)
    wrong = [one for one in found if not one.is_right]
    print(
        f"usage-after-kills seed {SEED} rounds {len(found)} answered {answered}"
        f" counted {sum(one.counted for one in found)} lost {lost}"
        f" most of a round {max(one.lost for one in found)}, in the window {sum(one.late for one in found)},"
        f" twice {sum(max(0, -one.lost - one.unanswered) for one in found)}"
    )
    assert wrong == []
    assert answered > 20 * ROUNDS, "next to nothing was asked"


def test_control_the_judge_sees_a_flush_that_could_not_write(server: FakeEngineServer) -> None:
    """The database is locked for some seconds, and then all workers are killed: more than a second is lost."""
    numbers, body = random.Random(SEED), _body(server)
    held, released = threading.Event(), threading.Event()

    def hold() -> None:
        with server.app.database.write() as tx:
            tx.run("UPDATE organizations SET name = name")
            held.set()
            released.wait(60)

    def kill() -> None:
        holding = threading.Thread(target=hold, daemon=True)
        holding.start()
        held.wait(20)
        time.sleep(5.0)
        _kill(server, WORKERS, numbers)
        released.set()
        holding.join(20)

    found = _round(server, body, numbers, kill)
    print(f"usage-after-kills control lost {found.lost}, in the window {found.late}")
    assert not found.is_right
