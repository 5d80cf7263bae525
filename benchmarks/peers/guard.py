"""Has a request become much dearer? `make bench-guard`; it takes seconds and suits a noisy machine of two processors.

Compares processor time, not time: what a request costs our server (all its processes), divided by what it costs a
bare proxy in Python (`raw_proxy.py`) in the same rounds. Others' work changes neither much. LIMITS are what was
measured, and then more than half as much again (streams: twice, because chunks that come together cost less): a factor
of two fails, noise does not.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import subjects
from benchmarks.peers.__main__ import compiled
from benchmarks.peers.requests import SCENARIOS
from benchmarks.peers.sampling import Sampler
from benchmarks.peers.subjects import Bench, Subject

ROUNDS = 4
SECONDS = 0.35
# (scenario, subject) -> how many times what the bare proxy costs. Measured: 5.6, 4.4, and 1.6 to 2.7.
LIMITS = {
    ("json64", subjects.TUNEWARDEN): 9.0,
    ("json64", subjects.TUNEWARDEN_REMOTE): 7.0,
    ("sse16", subjects.TUNEWARDEN): 4.0,
}
CONNECTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        bench = Bench(Path(name), compiled(Path(name), "mock"), running)
        subjects.start(bench, ["tunewarden"])
        bare = _raw_proxy(bench)
        costs = _costs(bench, bare, asked.rounds)
        if _too_dear(costs):
            print("too dear at first sight; measured at greater length:")
            for what, more in _costs(bench, bare, 3 * asked.rounds).items():
                costs[what] += more
    for (scenario, subject), found in costs.items():
        limit, each = LIMITS[scenario, subject], " ".join(f"{one:.2f}" for one in found)
        said = f"{statistics.median(found):5.2f} x a bare proxy, at most {limit:.1f}"
        print(f"{scenario:7} {subject:24} {said} ({each})")
    if dear := _too_dear(costs):
        sys.exit(f"too dear: {', '.join(dear)}")


def _too_dear(costs: dict[tuple[str, str], list[float]]) -> list[str]:
    return [
        f"{subject} in {scenario}"
        for (scenario, subject), found in costs.items()
        if statistics.median(found) > LIMITS[scenario, subject]
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
                if sample.has_failed:
                    sys.exit(f"{name} failed in {scenario}: {sample.failures} requests")
                found[scenario, name].append(sample.cpu_us / least.cpu_us)
    return found


def _raw_proxy(bench: Bench) -> Subject:
    port = subjects.free_port()
    command = [sys.executable, "-m", "benchmarks.peers.raw_proxy", str(port), str(bench.upstream)]
    log = bench.here / "raw_proxy.log"
    running = subjects.process(command, subjects.GATEWAY_CPU, log)
    subject = Subject("a bare proxy", port, process=bench.running.enter_context(running))
    subjects.wait_for(subject)
    return subject


if __name__ == "__main__":
    main()
