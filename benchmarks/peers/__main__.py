"""Tunewarden beside other gateways, on the same work in one interleaved run: `make bench`.

Every subject is started once, on processor 0; the stand-in for the engine and the load generator (C, compiled
here) are on processor 1. In each round, for each scenario, every subject is measured once, in random order.
Then come goals without a peer (`beside.py`). Writes docs/performance.md and docs/images/.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers import beside, install, report, subjects
from benchmarks.peers.requests import SCENARIOS
from benchmarks.peers.sampling import Sample, Sampler
from benchmarks.peers.stand_in import LOAD_CPU
from benchmarks.peers.subjects import STARTS, Bench

from tunewarden.engine_protocol.messages import VERSION

GATEWAY = Path(__file__).parents[1] / "gateway"
RESULTS = install.CACHE / "results.json"
# A peer that failed this often in a scenario is not asked again.
FAILURES_MAX = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="of a sample, after its warm-up")
    parser.add_argument(
        "--patience",
        type=float,
        default=60,
        help="seconds to wait for quiet, and to measure again",
    )
    parser.add_argument("--only", nargs="*", choices=[*STARTS], default=[*STARTS])
    parser.add_argument("--without", nargs="*", choices=[*beside.PARTS], default=[])
    parser.add_argument("--no-report", action="store_true", help="print, write no document")
    parser.add_argument("--report-only", action="store_true", help="of what was measured last")
    asked = parser.parse_args()
    if asked.report_only:
        report.write(json.loads(RESULTS.read_text()))
        return
    if shutil.which("cc") is None:
        sys.exit("no C compiler: the load generator must not be the bottleneck, so it is C.")
    if not {subjects.GATEWAY_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        sys.exit("two processors are needed: one for the gateway, one for its load.")
    found = report.surroundings(asked.rounds, asked.seconds)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        here = Path(name)
        bench = Bench(here, compiled(here, "mock"), running)
        subjects.start(bench, asked.only)
        sampler = Sampler(compiled(here, "load"), asked.seconds, asked.patience)
        found["samples"] = _rounds(bench, sampler, asked.rounds)
        found["subjects"] = [_without_secrets(subject) for subject in bench.subjects]
        found["missing"] = bench.missing
    found["beside"] = {}
    for part, measure in beside.PARTS.items():
        if part not in asked.without:
            print(f"{part} …", flush=True)
            found["beside"][part] = measure(asked.rounds)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    if not asked.no_report:
        RESULTS.write_text(json.dumps(found))
        report.write(found)
    print(report.text(found))


def _rounds(bench: Bench, sampler: Sampler, rounds: int) -> dict[str, list[object]]:
    """Scenario/subject -> a sample a round, None where a peer is not asked any more."""
    found: dict[str, list[Sample | None]] = {}
    for number in range(rounds):
        began = time.monotonic()
        for scenario, work in SCENARIOS.items():
            for subject in random.sample(bench.subjects, len(bench.subjects)):
                before = found.setdefault(f"{scenario}/{subject.name}", [])
                failed = sum(1 for one in before if one is None or one.has_failed)
                one = None if failed >= FAILURES_MAX else sampler.sample(subject, work)
                before.append(one)
        print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", flush=True)
    return {
        name: [None if one is None else dataclasses.asdict(one) for one in samples]
        for name, samples in found.items()
    }


def _without_secrets(subject: subjects.Subject) -> dict[str, object]:
    return {name: getattr(subject, name) for name in ("name", "version", "link", "checks", "fewer")}


def compiled(here: Path, program: str) -> Path:
    """Compile a program of benchmarks/gateway."""
    command = [
        "cc",
        "-O2",
        f"-DPROTOCOL_VERSION={VERSION}",
        "-o",
        str(here / program),
        str(GATEWAY / f"{program}.c"),
    ]
    subprocess.run(command, check=True)
    return here / program


if __name__ == "__main__":
    main()
