"""What 1,000,000 models cost against 1,000: start, list, retrieve, chat, DELETE, on real servers.

Each size has a data directory of its own: rows written in bulk, a keyring that is full (of noise, but
for a sample of real models that can be served and deleted), the stand-in for the engine. The sizes take
turns at everything. `python -m benchmarks.scale [--models 1000,100000,1000000] [--blobs]`.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import apsw
from benchmarks import many_models
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import servers
from tests.support.servers import LOCAL_BASE

from tunewarden.ids import token

CHAT_MODELS = 8


class Scaled(FakeEngineServer):
    """Notes when it was ready, to 2 ms."""

    def _start(self) -> None:
        servers.POLL_SECONDS = 0.002
        self.began, self.ready_seconds = time.perf_counter(), 0.0
        super()._start()

    def _is_ready(self) -> bool:
        if not self.ready_seconds:
            if not servers.Server._is_ready(self):  # noqa: SLF001  its own class's
                return False
            self.ready_seconds = time.perf_counter() - self.began
        return super()._is_ready()

    def worker(self) -> int:
        """Return the pid of the only worker."""
        (pid,) = self.workers()
        return pid


class Measured:
    """One size: its server, and what was measured on it."""

    def __init__(self, data: Path, count: int, sample: int, *, blobs: bool) -> None:
        self.count, self.data = count, data
        self.values: dict[str, list[float]] = {}
        began = time.perf_counter()
        self.real = build(data, count, sample, blobs=blobs)
        rng = random.Random(1)
        numbers = [rng.randint(1, count) for _ in range(2000)]
        with servers.open_data(data).database.read() as tx:
            rows = [tx.row("SELECT id FROM artifacts WHERE n = :n", n=n) for n in numbers]
        self.ids = [row[0] for row in rows if row is not None]
        print(f"{count:>9} models made in {time.perf_counter() - began:.0f} s", flush=True)

    def start(self) -> None:
        """Start the server once and stop it."""
        server = Scaled(self.data, workers=1)
        self.note("start to ready s", server.ready_seconds)
        server.stop()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the server for a block, with some models loaded."""
        self.server = Scaled(self.data, workers=1)
        self.connection = HTTPConnection(*self.server.address, timeout=600)
        self.headers = {"authorization": f"Bearer {self.server.owner_key}"}
        for model in self.real[:CHAT_MODELS]:
            self.chat(model, note=None)
        try:
            yield
            self.connection.close()
            self.server.stop()
        finally:
            if self.server.process.poll() is None:
                self.server.kill()

    def retrieve(self) -> None:
        """Retrieve any models."""
        for model in random.sample(self.ids, 25):
            took, answer = self.ask("GET", f"/v1/models/{model}")
            assert answer["id"] == model, answer
            self.note("retrieve ms", took * 1000)

    def chat_all(self) -> None:
        """Ask each model that is loaded once."""
        for model in self.real[:CHAT_MODELS]:
            self.chat(model, note="chat ms")

    def chat(self, model: str, *, note: str | None) -> None:
        """Ask one model."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]})
        took, answer = self.ask("POST", "/v1/chat/completions", body)
        assert answer["choices"], answer
        if note:
            self.note(note, took * 1000)

    def delete(self) -> None:
        """Delete a model that has a key and blobs."""
        took, answer = self.ask("DELETE", f"/v1/models/{self.real.pop()}")
        assert answer["deleted"], answer
        self.note("DELETE ms", took * 1000)

    def list_all(self) -> None:
        """Read the whole list; the worker's peak is the kernel's own (VmHWM), set back before."""
        worker = Path(f"/proc/{self.server.worker()}")
        before = _resident(worker, "VmRSS")
        (worker / "clear_refs").write_text("5")
        reader = HTTPConnection(*self.server.address, timeout=600)
        began = time.perf_counter()
        reader.request("GET", "/v1/models", headers=self.headers)
        response = reader.getresponse()
        bytes_read = found = 0
        rest = b""
        while chunk := response.read(1 << 20):
            bytes_read += len(chunk)
            found += (rest + chunk).count(b'"id":') - rest.count(b'"id":')
            rest = chunk[-4:]
        self.note("GET list s", time.perf_counter() - began)
        self.note("list MB", bytes_read / 1e6)
        self.note("worker grows MB", _resident(worker, "VmHWM") - before)
        self.note("worker before MB", before)
        reader.close()
        deleted = len(self.values.get("DELETE ms", []))
        assert found == self.count + 1 - deleted, f"{found} of {self.count + 1 - deleted} listed"

    def chat_beside_a_list(self) -> None:
        """Ask models while the same worker streams the whole list."""
        listing = threading.Thread(target=self.list_all)
        listing.start()
        while listing.is_alive():
            self.chat(random.choice(self.real[:CHAT_MODELS]), note="chat beside a list ms")
            time.sleep(0.005)
        listing.join()

    def examine(self) -> None:
        """Run `tunewarden doctor --deep` beside no server; its peak is the kernel's."""
        command = [sys.executable, "-m", "tunewarden", "doctor", "--deep", "--data", str(self.data)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peak = 0.0
        while process.poll() is None:
            with suppress(AssertionError):  # It has just ended.
                peak = _resident(Path(f"/proc/{process.pid}"), "VmHWM")
            time.sleep(0.01)
        self.note("doctor --deep s", time.perf_counter() - began)
        self.note("doctor --deep MB", peak)

    def page(self) -> None:
        """Twenty models from somewhere in the middle."""
        took, answer = self.ask("GET", f"/v1/models?limit=20&after={random.choice(self.ids)}")
        assert "data" in answer, answer
        self.note("page of 20 ms", took * 1000)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[float, dict[str, Any]]:
        """Send one request; return how long it took, in seconds, and the answer."""
        began = time.perf_counter()
        headers = self.headers | ({"content-type": "application/json"} if body else {})
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse().read()
        return time.perf_counter() - began, json.loads(answer)

    def note(self, what: str, value: float) -> None:
        """Keep one value."""
        self.values.setdefault(what, []).append(value)


def build(data: Path, count: int, sample: int, *, blobs: bool) -> list[str]:
    """Make a data directory with so many models; return the ids of those that are real."""
    servers.prepare_local_base(data)
    real = many_models.fill(servers.open_data(data), LOCAL_BASE, count, sample)
    if blobs:
        _make_blobs(data)
        os.sync()
    return real


def _make_blobs(data: Path) -> None:
    """Make the files of every model: empty ones, which cost the directories the same."""
    connection = apsw.Connection(str(data / "tunewarden.sqlite"))
    for (name,) in connection.execute("SELECT name FROM blobs"):
        path = data / "blobs" / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    connection.close()


def _resident(process: Path, field: str) -> float:
    """Return VmRSS or VmHWM in MB."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1000
    raise AssertionError(f"no {field}")


def take_turns(sizes: list[Measured], work: Callable[[Measured], object], rounds: int) -> None:
    for _ in range(rounds):
        for size in random.sample(sizes, len(sizes)):
            work(size)


def show(sizes: list[Measured]) -> None:
    counts = "".join(f"{size.count:>12,}" for size in sizes)
    print(f"{'models':<28}{counts}   ratio, last to first")
    for what in sizes[-1].values:
        percentiles = (50, 99) if len(sizes[0].values[what]) >= 100 else (50,)
        for percentile in percentiles:
            found = [_percentile(size.values[what], percentile) for size in sizes]
            ratio = f"{found[-1] / found[0]:>10.2f}" if found[0] else ""
            row = "".join(f"{value:>12.2f}" for value in found)
            print(f"{what + f' p{percentile}':<28}{row}{ratio}")


def _percentile(values: list[float], percentile: int) -> float:
    if percentile == 50:
        return statistics.median(values)
    return sorted(values)[min(len(values) - 1, len(values) * percentile // 100)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="1000,100000,1000000")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--deletes", type=int, default=100)
    parser.add_argument("--lists", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--blobs", action="store_true", help="make every model's files, empty")
    asked = parser.parse_args()
    sample = asked.deletes + CHAT_MODELS
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        sizes = [
            Measured(Path(directory) / token(6), int(count), sample, blobs=asked.blobs)
            for count in asked.models.split(",")
        ]
        take_turns(sizes, Measured.start, asked.starts)
        with ExitStack() as running:
            for size in sizes:
                running.enter_context(size.running())
            take_turns(sizes, Measured.retrieve, 40)
            take_turns(sizes, Measured.chat_all, 60)
            take_turns(sizes, Measured.delete, asked.deletes)
            take_turns(sizes, Measured.page, 20)
            take_turns(sizes, Measured.list_all, asked.lists)
            take_turns(sizes, Measured.chat_beside_a_list, 1)
        take_turns(sizes, Measured.examine, 1)
        show(sizes)


if __name__ == "__main__":
    main()
