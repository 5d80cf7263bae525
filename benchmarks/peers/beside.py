"""Goals that no gateway is a peer for: DELETE, revocation, start. Each beside what the machine can do."""

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

from benchmarks import revocation, startup
from tests.chaos.fake_engine_server import FakeEngineServer, serving

WORKERS = 4
AT_ONCE = 8
DELETES_A_THREAD = 12
COMMITS = 200
REVOCATIONS_A_ROUND = 12
Measured = dict[str, list[float]]


def deletes(rounds: int) -> Measured:
    """DELETE, 8 at once on 4 workers; interleaved with durable commits of one row by one process."""
    found: Measured = {"deletes/s": [], "commits/s": [], "fdatasyncs/s": [], "seconds": []}
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name) / "data", workers=WORKERS) as server,
    ):
        for number in range(rounds + 1):
            rate, seconds = _deletes_at_once(server)
            commits, syncs = _commit_rate(Path(name)), _sync_rate(Path(name))
            if number:  # the first warms up
                found["deletes/s"].append(rate)
                found["commits/s"].append(commits)
                found["fdatasyncs/s"].append(syncs)
                found["seconds"] += seconds
    return found


def revocations(rounds: int) -> Measured:
    """What benchmarks/revocation.py measures."""
    with tempfile.TemporaryDirectory() as name:
        return revocation.measured(
            Path(name), workers=WORKERS, deletes=rounds * REVOCATIONS_A_ROUND
        )


def starts(rounds: int) -> Measured:
    """What benchmarks/startup.py measures, of one worker."""
    with tempfile.TemporaryDirectory() as name:
        startup.start(Path(name) / "data", 1)
        found = [startup.start(Path(name) / "data", 1) for _ in range(rounds)]
    return {
        "seconds": [seconds for seconds, _ in found],
        "MiB a worker": [statistics.fmean(weights) for _, weights in found],
    }


PARTS: dict[str, Callable[[int], Measured]] = {
    "deletes": deletes,
    "revocations": revocations,
    "starts": starts,
}


def _deletes_at_once(server: FakeEngineServer) -> tuple[float, list[float]]:
    models = [[server.make_model().id for _ in range(DELETES_A_THREAD)] for _ in range(AT_ONCE)]
    took: list[float] = []
    key = server.owner_key
    begun = threading.Barrier(AT_ONCE + 1)

    def delete(own: list[str]) -> None:
        connection = HTTPConnection(*server.address, timeout=60)
        connection.connect()
        begun.wait()
        for model in own:
            began = time.perf_counter()
            connection.request(
                "DELETE", f"/v1/models/{model}", None, {"authorization": f"Bearer {key}"}
            )
            response = connection.getresponse()
            response.read()
            took.append(time.perf_counter() - began)
            assert response.status == 200
        connection.close()

    threads = [threading.Thread(target=delete, args=(own,)) for own in models]
    for thread in threads:
        thread.start()
    begun.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    assert len(took) == AT_ONCE * DELETES_A_THREAD
    return len(took) / (time.perf_counter() - began), took


def _commit_rate(directory: Path) -> float:
    """Durable transactions of one row a second, in SQLite as our database is set up."""
    connection = sqlite3.connect(directory / "commits.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, note TEXT)")
    began = time.perf_counter()
    for _ in range(COMMITS):
        connection.execute("INSERT INTO rows (note) VALUES ('one row of a benchmark')")
    took = time.perf_counter() - began
    connection.close()
    return COMMITS / took


def _sync_rate(directory: Path) -> float:
    """Appends of 4 KiB a second, each with its fdatasync."""
    with (directory / "appended").open("ab", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(COMMITS):
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
        return COMMITS / (time.perf_counter() - began)
