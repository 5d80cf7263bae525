"""How long pages of the console take at 100,000 models, and what an unused and a used console costs a worker's memory.

`python -m benchmarks.console_pages [--models N] [--rounds N]`: each page in turn, by a session, from one client; the
worker's own proportional memory before the first page and after the last.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import many_models
from tests.support import servers
from tests.support.console import Visitor
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch

MIB = 1024


def main() -> None:
    """Measure, and print a line for each page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--models", type=int, default=100_000)
    asked.add_argument("--rounds", type=int, default=100)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        servers.prepare_local_base(data)
        real = many_models.fill(servers.open_data(data), LOCAL_BASE, given.models, 40)
        with servers.serving(data, workers=1, kind=WithoutTorch) as server:
            before = _memory(server)
            visitor = Visitor(server, server.owner_key)
            for path in _paths(real[0]):
                _measure(visitor, path, given.rounds)
            print(f"worker: {before:.1f} MiB before the first page, {_memory(server):.1f} after")


def _paths(model: str) -> list[str]:
    return [
        "/console",
        "/console/models",
        f"/console/models?after={model}",
        f"/console/models?base={LOCAL_BASE}&state=active",
        "/console/models?name=nothing-is-called-so",
        "/console/models?base=no-base",
        "/console/models?state=archived",
        f"/console/models/{model}",
        f"/console/models/{model}/delete",
        "/console/deletions",
        "/console/files",
        "/console/jobs",
    ]


def _measure(visitor: Visitor, path: str, rounds: int) -> None:
    took = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        reply = visitor.get(path)
        took.append((time.perf_counter() - began) * 1000)
        assert reply.status == 200, (path, reply.status)
    first, *rest = took
    rest.sort()
    p50, p95 = statistics.median(rest), rest[int(len(rest) * 0.95) - 1]
    print(f"{path:<60} first {first:6.1f} ms, p50 {p50:6.1f}, p95 {p95:6.1f}")


def _memory(server: Server) -> float:
    """Return the private memory of the worker in MiB, as benchmarks of its memory count it."""
    (worker,) = server.running("tunewarden.server.worker")
    text = Path(f"/proc/{worker}/smaps_rollup").read_text("ascii")
    found = dict(line.split()[:2] for line in text.splitlines()[1:])
    return int(found["Pss:"]) / MIB


if __name__ == "__main__":
    main()
