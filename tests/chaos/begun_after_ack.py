"""Stress of the fence on one host: does any worker begin on a model after its deletion was answered?

Real processes on the real admission path: `Admissions.admit` over `KernelLockFence` and
`SqliteDatabase`. Workers serve a moving window of models while deleters delete through it; workers
are stopped and continued at random, sometimes for longer than the fence waits. The time of each
answer is published in shared memory (CLOCK_MONOTONIC), and every worker compares.

The database lies on tmpfs, for rate: this stress is about order between processes, not about disks.
"""

import argparse
import asyncio
import mmap
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tunewarden.clock import SystemClock
from tunewarden.db.database import Row, Tx
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.errors import Error
from tunewarden.identity.key_format import Presented
from tunewarden.identity.policy import Caller, Role
from tunewarden.serving.admission import Admissions, Serving
from tunewarden.serving.fence import Ending, Fence, FencedWorker
from tunewarden.serving.kernel_locks import KernelLockFence

WORKERS = 4
TASKS = 3  # requests that a worker serves at once
DELETERS = 2
BOUND_SECONDS = 0.25
STOP_SECONDS = 0.02
LONG_STOP_SECONDS = 0.6
LONG_STOP_SHARE = 0.03
CHUNKS_MAX = 4
DELETE_PAUSE_SECONDS = 0.004
CACHE_SECONDS = 0.05
MODES = ("guard", "unguarded", "cached")
KEY = Presented("k", b"", "sk-tw-")
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run saw. Violations: begins, and chunks, after the answer to the deletion."""

    begins: int
    chunks: int
    refused: int
    deletes: int
    kills: int
    begun_after: int
    chunks_after: int
    fence_seconds: list[float]

    @property
    def violations(self) -> int:
        return self.begun_after + self.chunks_after

    def __str__(self) -> str:
        took = sorted(self.fence_seconds) or [0.0]
        p50, p99, most = (took[int((len(took) - 1) * share)] * 1000 for share in (0.5, 0.99, 1))
        return (
            f"begins {self.begins} chunks {self.chunks} refused {self.refused}"
            f" deletes {self.deletes} kills {self.kills} begun-after-ack {self.begun_after}"
            f" chunks-after-ack {self.chunks_after}"
            f" fence p50 {p50:.2f} p99 {p99:.1f} max {most:.0f} ms"
        )


class Counters:
    """Words in memory that forked processes share; each word has one writer."""

    def __init__(self, models: int) -> None:
        self.models = models
        self._words = memoryview(mmap.mmap(-1, 8 * (models * 2 + 64))).cast("Q")
        self._start = models * 2

    def acknowledge(self, n: int, fence_seconds: float) -> None:
        """Publish the fence's time, then that the deletion is answered: now."""
        self._words[self.models + n] = int(fence_seconds * 1e9)
        self._words[n] = time.monotonic_ns()

    def is_acknowledged(self, n: int) -> bool:
        acknowledged_at = self._words[n]
        return acknowledged_at != 0 and time.monotonic_ns() > acknowledged_at

    def fence_times(self) -> list[float]:
        times = self._words[self.models : self._start]
        done = self._words[: self.models]
        return [times[n] / 1e9 for n in range(self.models) if done[n]]

    def count(self, slot: int, by: int = 1) -> None:
        self._words[self._start + slot] += by

    def read(self, slot: int) -> int:
        return self._words[self._start + slot]


STOPPED, CURSOR, KILLS = 0, 1, 2  # KILLS and the next one: one a deleter; CURSOR's too
BEGINS, CHUNKS, REFUSED, BEGUN_AFTER, CHUNKS_AFTER = range(10, 10 + 5 * WORKERS, WORKERS)


class NoFence:
    """Control: nobody keeps out of anybody's way."""

    def join(self) -> None:
        pass

    def begin(self, n: int) -> bool:
        return True

    def end(self, n: int) -> None:
        pass

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        return []

    def is_held(self, n: int) -> bool:
        return False

    def reserve(self, count: int) -> None:
        pass

    def sweep(self) -> int:
        return 0


class CachingDatabase(SqliteDatabase):
    """Control: a state that was read, and a stamp, are believed for 50 ms."""

    _cache: dict[object, tuple[Row | None, float]]
    _stamp: tuple[object, float] = (None, float("-inf"))

    def stamp(self) -> object:
        if time.monotonic() - self._stamp[1] > CACHE_SECONDS:
            self._stamp = super().stamp(), time.monotonic()
        return self._stamp[0]

    def peek(self, sql: str, /, **parameters: object) -> Row | None:
        return self.believe(super().peek, sql, parameters)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        with super().read() as tx:
            yield CachingTx(self, tx)  # type: ignore[misc]  # it is a Tx by what it passes on

    def believe(
        self, read: Callable[..., Row | None], sql: str, parameters: dict[str, object]
    ) -> Row | None:
        self._cache = getattr(self, "_cache", {})
        n = parameters.get("n")
        if n is None:
            return read(sql, **parameters)
        row, read_at = self._cache.get((sql, n), (None, float("-inf")))
        if time.monotonic() - read_at > CACHE_SECONDS:
            row, read_at = read(sql, **parameters), time.monotonic()
            self._cache[sql, n] = (row, read_at)
        return row


@dataclass(frozen=True, slots=True)
class CachingTx:
    """And what a transaction reads."""

    database: CachingDatabase
    tx: Tx

    def row(self, sql: str, /, **parameters: object) -> Row | None:
        return self.database.believe(self.tx.row, sql, parameters)


@dataclass(frozen=True, slots=True)
class Harness:
    """One run's directory, mode and memory."""

    directory: Path
    mode: str
    seed: int
    counters: Counters

    def database(self, *, migrate: bool = False) -> SqliteDatabase:
        kind = CachingDatabase if self.mode == "cached" else SqliteDatabase
        return kind(self.directory / "db.sqlite", SystemClock(), migrate=migrate)

    def fence(self) -> KernelLockFence:
        return KernelLockFence(self.directory / "run", SystemClock())

    def prepare(self) -> None:
        (self.directory / "run").mkdir()
        with self.database(migrate=True).write() as tx:
            tx.run("INSERT INTO organizations (id, name, created_at) VALUES ('o', 'o', 0)")
            tx.run(
                "INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES ('p', 'o', 'p', 1, 0)"
            )
            tx.run(
                "INSERT INTO bases (name, kind, location, engine_model, modules, created_at)"
                " VALUES ('b', 'local', '', 'b', '{}', 0)"
            )
            for n in range(1, self.counters.models):
                tx.run(
                    "INSERT INTO artifacts VALUES (:n, 'model', :id, :id, 'o', 'p', 'active', 1, '', '',"
                    " '', '', 0, x'')",
                    n=n,
                    id=_id(n),
                )
                tx.run("INSERT INTO models (n, base, suffix) VALUES (:n, 'b', '')", n=n)

    def work(self, worker: int, life: int) -> None:
        fence: Fence = NoFence()
        if self.mode == "guard":
            fence = self.fence()
            fence.join()
        asyncio.run(self._serve(worker, life, Admissions(self.database(), fence, SystemClock())))

    async def _serve(self, worker: int, life: int, admissions: Admissions) -> None:
        numbers = random.Random(f"{self.seed} {worker} {life}")
        await asyncio.gather(*(self._ask(worker, numbers, admissions) for _ in range(TASKS)))

    async def _ask(self, worker: int, numbers: random.Random, admissions: Admissions) -> None:
        memory = self.counters
        caller = Caller(
            key_id="k",
            user_id="u",
            organization_id="o",
            organization_name="o",
            project_id="p",
            role=Role.OWNER,
            project_role=None,
            scopes=frozenset(),
            request_id="r",
        )
        while not memory.read(STOPPED):
            near = memory.read(CURSOR) + numbers.randrange(-3, 14)
            n = min(max(near, 1), memory.models - 1)
            try:
                _, serving = admissions.admit(_id(n), KEY, lambda _: caller, int, int)
            except Error:
                memory.count(REFUSED + worker)
            else:
                memory.count(BEGINS + worker)
                if memory.is_acknowledged(n):
                    memory.count(BEGUN_AFTER + worker)
                await self._chunks(worker, numbers.randrange(CHUNKS_MAX), admissions, serving)
                admissions.end(serving)
            await asyncio.sleep(0)

    async def _chunks(
        self, worker: int, count: int, admissions: Admissions, serving: Serving
    ) -> None:
        assert serving.n is not None
        for _ in range(count):
            if not admissions.may_go_on(serving):
                return
            self.counters.count(CHUNKS + worker)
            if self.counters.is_acknowledged(serving.n):
                self.counters.count(CHUNKS_AFTER + worker)
            await asyncio.sleep(0)

    def delete(self, deleter: int) -> None:
        memory, database = self.counters, self.database()
        fence: Fence = self.fence() if self.mode == "guard" else NoFence()
        for n in range(1 + deleter, memory.models, DELETERS):
            if memory.read(STOPPED):
                return
            with database.write() as tx:
                sql = "UPDATE artifacts SET state = 'deleting', epoch = epoch + 1 WHERE n = :n"
                assert tx.run(sql, n=n) == 1
            self._fence(fence, deleter, n)
            if deleter == 0:
                memory.count(CURSOR, DELETERS)
            time.sleep(DELETE_PAUSE_SECONDS)

    def _fence(self, fence: Fence, deleter: int, n: int) -> None:
        began = time.monotonic()
        while not self.counters.read(STOPPED):
            with suppress(Error):  # a 503: the deletion goes on, and is answered later
                fenced = fence.fence(n, within_seconds=BOUND_SECONDS)
                self.counters.acknowledge(n, time.monotonic() - began)
                self.counters.count(KILLS + deleter, sum(w.how is Ending.KILLED for w in fenced))
                return


def run(
    mode: str, *, seed: int, seconds: float, deletes: int, begins: int = 0, fires: bool = False
) -> Outcome:
    """Run until `seconds` have passed and there were `begins`; a control ends when it `fires`."""
    with _directory() as directory:
        harness = Harness(directory, mode, seed, Counters(deletes + 1))
        _in_child(harness.prepare).join()
        workers = [_in_child(harness.work, worker, 0) for worker in range(WORKERS)]
        deleters = [_in_child(harness.delete, deleter) for deleter in range(DELETERS)]
        try:
            _stop_and_continue(harness, workers, deleters, seconds, begins, fires=fires)
        finally:
            harness.counters.count(STOPPED)
            for process in workers + deleters:
                with suppress(ProcessLookupError):
                    os.kill(process.pid or 0, signal.SIGCONT)
                process.join(5)
                process.kill()
        assert all(process.exitcode == 0 for process in deleters), "a deleter failed"
        return _outcome(harness.counters)


def _stop_and_continue(
    harness: Harness,
    workers: list[BaseProcess],
    deleters: list[BaseProcess],
    seconds: float,
    begins: int,
    *,
    fires: bool,
) -> None:
    numbers = random.Random(harness.seed)
    fence = harness.fence()
    until = time.monotonic() + seconds
    lives = 0
    while any(process.is_alive() for process in deleters):
        seen = _outcome(harness.counters, with_times=False)
        if (time.monotonic() > until and seen.begins >= begins) or (fires and seen.violations):
            return
        worker = numbers.randrange(WORKERS)
        if not workers[worker].is_alive():
            assert workers[worker].exitcode == -signal.SIGKILL, "a worker failed by itself"
            lives += 1
            fence.sweep()
            workers[worker] = _in_child(harness.work, worker, lives)
        pid = workers[worker].pid or 0
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            is_long = numbers.random() < LONG_STOP_SHARE
            time.sleep(LONG_STOP_SECONDS if is_long else numbers.random() * STOP_SECONDS)
            os.kill(pid, signal.SIGCONT)
        time.sleep(numbers.random() * STOP_SECONDS / 2)


def _outcome(memory: Counters, *, with_times: bool = True) -> Outcome:
    def total(slot: int) -> int:
        return sum(memory.read(slot + worker) for worker in range(WORKERS))

    times = memory.fence_times() if with_times else []
    return Outcome(
        begins=total(BEGINS),
        chunks=total(CHUNKS),
        refused=total(REFUSED),
        deletes=len(times),
        kills=sum(memory.read(KILLS + deleter) for deleter in range(DELETERS)),
        begun_after=total(BEGUN_AFTER),
        chunks_after=total(CHUNKS_AFTER),
        fence_seconds=times,
    )


def _id(n: int) -> str:
    return f"ft:b:o::{n}"


def _in_child(target: object, *arguments: object) -> BaseProcess:
    process = FORK.Process(target=target, args=arguments)  # type: ignore[arg-type]  # any callable
    process.start()
    return process


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tunewarden-fence-", dir="/dev/shm") as name:
        yield Path(name)


def main() -> None:
    """Print one line a run; fail on a violation, or on a control that saw none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--begins", type=int, default=0)
    parser.add_argument("--deletes", type=int, default=60_000)
    asked = parser.parse_args()
    is_control = asked.mode != "guard"
    began = time.monotonic()
    outcome = run(
        asked.mode,
        seed=asked.seed,
        seconds=asked.seconds,
        deletes=asked.deletes,
        begins=asked.begins,
        fires=is_control,
    )
    took = time.monotonic() - began
    print(f"begun-after-ack {asked.mode} seed {asked.seed} {outcome} in {took:.0f} s", flush=True)
    sys.exit(0 if (outcome.violations > 0) is is_control else 1)


if __name__ == "__main__":
    main()
