"""Limits under load (DESIGN §18): whoever sends more than a limit allows, over all workers, no more is served.

The bound is that of docs/how-to/limits.md: in T seconds L (1 + T / 60), and of tokens what requests in flight used
beyond their reservation. Meanwhile another organization is answered as before.
"""

import http.client
import itertools
import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from tests.fakes.upstream import PROMPT_TOKENS, WORDS, FakeUpstream
from tests.lab import budgets
from tests.support import servers
from tests.support.servers import Server

from tunewarden.identity import key_format
from tunewarden.registry import rate_limits
from tunewarden.registry.rate_limits import NO_LIMIT, Change, RateLimit, RateLimits

BASE = "remote-base"
WORKERS = 4
SENDERS = 16
BYSTANDERS = 2
ROUNDS = budgets.count(1, 6)  # of each kind
SECONDS = budgets.count(2, 8)
USED = PROMPT_TOKENS + len(WORDS)  # tokens of each answer
LATE_SECONDS = 2.0  # for a bystander's slowest answer, on a machine that is busy
LIMITS = RateLimits(RateLimit(NO_LIMIT, NO_LIMIT))
# What is limited, of whom, and whether each request names a maximum that covers what it uses.
KINDS = tuple(itertools.product(("requests", "tokens"), ("project", "key"), (True, False)))
_names = itertools.count()


class WithOwnBuckets(Server):
    """Each worker counts alone: a control."""

    program: ClassVar[str] = "tests.fakes.with_own_buckets"


@dataclass
class Load:
    """What senders of one key got."""

    statuses: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    latencies: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """One limit, what was served of it, and how long others waited."""

    limit: int
    is_of_tokens: bool
    slack: int
    seconds: float
    load: Load
    quiet: Load
    others: Load

    @property
    def served(self) -> int:
        return self.load.tokens if self.is_of_tokens else self.load.statuses[200]

    @property
    def bound(self) -> float:
        return self.limit * (1 + self.seconds / 60) + self.slack

    def violations(self) -> list[str]:
        found = []
        if self.served > self.bound:
            found.append(f"{self.served} served of {self.bound:.1f}")
        if set(self.others.statuses) != {200}:
            found.append(f"others were refused: {dict(self.others.statuses)}")
        if max(self.others.latencies) > LATE_SECONDS:
            found.append(f"others waited {max(self.others.latencies):.2f} s")
        return found


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        yield running


def _send(server: Server, key: str, seconds: float, senders: int, **fields: object) -> Load:
    """Send for so long, from so many connections, each as soon as it was answered."""
    body = json.dumps(
        {"model": BASE, "messages": [{"role": "user", "content": "Hello"}], **fields}
    ).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    load, lock, until = Load(), threading.Lock(), time.monotonic() + seconds

    def run() -> None:
        with closing(http.client.HTTPConnection(*server.address, timeout=60)) as connection:
            while time.monotonic() < until:
                began = time.monotonic()
                connection.request("POST", "/v1/chat/completions", body, headers)
                answer = connection.getresponse()
                read = answer.read()
                took = time.monotonic() - began
                with lock:
                    load.statuses[answer.status] += 1
                    load.latencies.append(took)
                    if answer.status == 200:
                        load.tokens += json.loads(read)["usage"]["total_tokens"]

    threads = [threading.Thread(target=run) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def _set(server: Server, key: str, of: str, change: Change) -> None:
    key_id = key_format.present(key).id
    with server.app.database.write() as tx:
        if of == "key":
            rate_limits.set_of_key(tx, key_id, change)
            return
        row = tx.row("SELECT project_id FROM api_keys WHERE id = :id", id=key_id)
        assert row is not None
        LIMITS.set_of_project(tx, str(row[0]), BASE, change)


def _round(
    server: Server, kind: tuple[str, str, bool], limit: int, *, is_set: bool = True
) -> Round:
    what, of, is_covered = kind
    is_of_tokens = what == "tokens"
    key, other = (server.make_key("owner", organization=f"limits-{next(_names)}") for _ in range(2))
    quiet = _send(server, other, 0.5, BYSTANDERS)
    if is_set:
        change = Change(None, limit) if is_of_tokens else Change(limit, None)
        _set(server, key, of, change)
    others: list[Load] = []
    beside = threading.Thread(
        target=lambda: others.append(_send(server, other, SECONDS, BYSTANDERS))
    )
    beside.start()
    began = time.monotonic()
    fields: dict[str, object] = {"max_tokens": USED} if is_covered else {}
    load = _send(server, key, SECONDS, SENDERS, **fields)
    seconds = time.monotonic() - began
    beside.join()
    # Without a maximum it is reserved what such requests used of late, and at first less.
    slack = SENDERS * USED if is_of_tokens and not is_covered else 0
    return Round(limit, is_of_tokens, slack, seconds, load, quiet, others[0])


def _serving(
    stack: ExitStack, factory: pytest.TempPathFactory, upstream: FakeUpstream, kind: type[Server]
) -> Server:
    data = factory.mktemp("limits") / "data"
    server = stack.enter_context(servers.serving(data, workers=WORKERS, kind=kind))
    added = server.cli("bases", "add", BASE, "--engine-url", upstream.url)
    assert added.returncode == 0, added.stderr
    return server


def _p99(load: Load) -> float:
    return statistics.quantiles(load.latencies, n=100)[98]


def test_no_more_is_served_than_a_limit_and_nobody_else_waits(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed = budgets.new_seed()
    chance = random.Random(seed)
    sent, most_of_bound, least_of_limit = Counter[int](), 0.0, 2.0
    quiet, beside, violations = Load(), Load(), []
    with ExitStack() as stack:
        server = _serving(stack, tmp_path_factory, upstream, Server)
        kinds = [kind for kind in KINDS for _ in range(ROUNDS)]
        chance.shuffle(kinds)
        for kind in kinds:
            limit = chance.randint(20, 60) * (USED if kind[0] == "tokens" else 1)
            done = _round(server, kind, limit)
            violations += [f"{kind} limit {limit}: {one}" for one in done.violations()]
            sent += done.load.statuses
            most_of_bound = max(most_of_bound, done.served / done.bound)
            least_of_limit = min(least_of_limit, done.served / limit)
            quiet.latencies += done.quiet.latencies
            beside.latencies += done.others.latencies
    print(
        f"limits seed {seed} {len(kinds)} limits on {WORKERS} workers, {SENDERS} connections each:"
        f" {sent[200]} served, {sent[429]} refused, at most {most_of_bound:.3f} of the bound, at least"
        f" {least_of_limit:.2f} of the limit; {len(beside.latencies)} requests of others p50"
        f" {statistics.median(beside.latencies) * 1000:.1f} p99 {_p99(beside) * 1000:.0f} ms"
        f" (alone {statistics.median(quiet.latencies) * 1000:.1f}, {_p99(quiet) * 1000:.0f})"
    )
    assert violations == []
    assert set(sent) == {200, 429}
    assert least_of_limit > 0.9, "what a limit allows is served"


@pytest.mark.parametrize("wrong", ["the limit is off", "workers count alone"])
def test_control_the_judge_sees_more_than_a_limit(
    upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory, wrong: str
) -> None:
    is_off = wrong == "the limit is off"
    with ExitStack() as stack:
        kind = Server if is_off else WithOwnBuckets
        server = _serving(stack, tmp_path_factory, upstream, kind)
        limits = {"requests": 30, "tokens": 30 * USED}
        done = [
            _round(server, (what, "project", True), limit, is_set=not is_off)
            for what, limit in limits.items()
        ]
    print("; ".join(f"{one.served} served of {one.bound:.0f}" for one in done))
    assert all(one.violations() for one in done)
