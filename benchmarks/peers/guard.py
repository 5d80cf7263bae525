"""Has a request become dearer? `make bench-guard`; it takes half a minute and suits a noisy machine of two processors.

First it counts, which nothing else on the machine changes: bytecode instructions and calls of C functions that a request
takes in a worker (`counting.py`). COUNTS is what was measured; a tenth and a half more fails.

What is no bytecode (SQL, the kernel, C) is seen in processor time: what a request costs our server, all its processes,
divided by what it costs a bare proxy in Python (`raw_proxy.py`) in the same rounds. LIMITS are wide: the ratio differs by
machine and moves with how many requests come together, and noise must not fail.

When a request has become cheaper or is dearer for a good reason: `python -m benchmarks.peers.guard --measured` prints
both tables anew. `--control` runs a server that is slowed on purpose (`slowed/`), and fails unless that is found.
"""

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import counting, programs, subjects
from benchmarks.peers.__main__ import compiled
from benchmarks.peers.requests import SCENARIOS
from benchmarks.peers.sampling import Sampler
from benchmarks.peers.stand_in import LOAD_CPU
from benchmarks.peers.subjects import GATEWAY_CPU, Bench, Subject

ROUNDS = 5
SECONDS = 0.35
# Measured with CPython 3.11; another compiles to other instructions, so there the measure is this times its slack.
COUNTS = {
    "instructions of a whole answer": 2323,
    "instructions of a stream, by its chunks": 919,
    "calls of C of a whole answer": 63,
    "calls of C of a stream, by its chunks": 26,
}
COUNTS_SLACK = 1.15
COUNTS_OTHER_PYTHON_SLACK = 1.5
COUNTED_PYTHON = "3.11"
# (scenario, subject) -> how many times what the bare proxy costs. That differs by machine: the same tree measured 2.5 to
# 2.7 on one, 4.5 on another, whose system calls are cheaper; there the control's 60 µs make it 8.2. So these bounds are
# wide; the counts above are sharp.
LIMITS = {
    ("json64", subjects.TUNEWARDEN): 6.5,
    ("json64", subjects.TUNEWARDEN_REMOTE): 6.5,
    ("sse16", subjects.TUNEWARDEN): 2.5,
}
CONNECTIONS = 16
SLOWED = Path(__file__).parent / "slowed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--measured", action="store_true", help="print, for COUNTS and LIMITS")
    parser.add_argument("--control", action="store_true", help="slow the server; must be found")
    asked = parser.parse_args()
    if asked.control:
        paths = [str(SLOWED), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        dear = _counted(Path(name), is_shown_only=asked.measured)
        costs: dict[tuple[str, str], list[float]] = {}
        if shutil.which("cc") is None or not {GATEWAY_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
            print("no ratios: they need a C compiler and two processors")
        else:
            bench = Bench(Path(name), compiled(Path(name), "mock"), running)
            subjects.start(bench, ["tunewarden"])
            bare = _raw_proxy(bench)
            costs = _costs(bench, bare, asked.rounds)
            if _too_dear(costs) and not asked.control:
                print("too dear at first sight; measured at greater length:")
                for what, more in _costs(bench, bare, 3 * asked.rounds).items():
                    costs[what] += more
    for (scenario, subject), found in costs.items():
        limit, each = LIMITS[scenario, subject], " ".join(f"{one:.2f}" for one in found)
        middle = statistics.median(found) if found else float("nan")
        said = f"{middle:5.2f} x a bare proxy, at most {limit:.1f}"
        print(f"{scenario:7} {subject:24} {said} ({each})")
    dear += _too_dear(costs)
    if asked.control:
        print(f"found: {', '.join(dear)}")
        sys.exit(None if dear else "the server was slowed, and nothing was found")
    if dear and not asked.measured:
        sys.exit(f"too dear: {', '.join(dear)}")


def _counted(here: Path, *, is_shown_only: bool) -> list[str]:
    """Count and print; return what is above its limit."""
    is_same = platform.python_version().startswith(COUNTED_PYTHON + ".")
    slack = COUNTS_SLACK if is_same else COUNTS_OTHER_PYTHON_SLACK
    dear = []
    for what, count in counting.counts(here).items():
        if is_shown_only:
            print(f'    "{what}": {count:.0f},')
            continue
        limit = COUNTS[what] * slack
        print(f"{count:7.0f} {what}, at most {limit:.0f}")
        if count > limit:
            dear.append(what)
    return dear


def _too_dear(costs: dict[tuple[str, str], list[float]]) -> list[str]:
    return [
        f"{subject} in {scenario}"
        for (scenario, subject), found in costs.items()
        if found and statistics.median(found) > LIMITS[scenario, subject]
    ]


def _costs(bench: Bench, bare: Subject, rounds: int) -> dict[tuple[str, str], list[float]]:
    sampler = Sampler(compiled(bench.here, "load"), SECONDS, patience_seconds=0)
    found: dict[tuple[str, str], list[float]] = {what: [] for what in LIMITS}
    by_name = {subject.name: subject for subject in bench.subjects}
    for _ in range(rounds):
        for scenario in dict.fromkeys(scenario for scenario, _ in LIMITS):
            work = replace(SCENARIOS[scenario], connections=CONNECTIONS)
            least = sampler.sample(bare, work)
            for name in (name for at, name in LIMITS if at == scenario):
                sample = sampler.sample(by_name[name], work)
                if sample.failures:
                    sys.exit(f"{name} failed in {scenario}: {sample.failures} requests")
                # Without an answer in a whole sample, the machine stood still: nothing was measured.
                if sample.rate and least.rate:
                    found[scenario, name].append(sample.cpu_us / least.cpu_us)
    return found


def _raw_proxy(bench: Bench) -> Subject:
    port = programs.free_port()
    command = [sys.executable, "-m", "benchmarks.peers.raw_proxy", str(port), str(bench.upstream)]
    log = bench.here / "raw_proxy.log"
    running = programs.running(command, subjects.GATEWAY_CPU, log)
    subject = Subject("a bare proxy", port, process=bench.running.enter_context(running))
    subjects.wait_for(subject)
    return subject


if __name__ == "__main__":
    main()
