"""The embedded engine of this tree beside another tree's, in alternation: `python -m benchmarks.engine_against TREE`.

TREE is a checkout with its own `.venv`, as for `benchmarks.against`. Both engines run at once with the demo's base of this
tree and one thread each. A round takes one sample of each side, in random order: plain chats of one choice, as many at
once as are named. Take the ratios: of tokens a second, which others on the machine disturb, and of the processor time
that the engine's process took for a token, which they disturb less.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.engine import stream_once
from benchmarks.peers.ratios import ratio, shown
from tests.support.embedded_engine import BASE, EngineProcess, running_engine

ROOT = Path(__file__).parents[1]
ROUNDS = 15
# Chats at once: alone, in a batch, a full batch, and twice as many as it has places.
CHATS = (1, 8, 32, 64)
REPEATS = {1: 4}
TOKENS = 128
RATE, COST = "tokens/s", "processor time of a token, µs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, help="a checkout to compare this one with")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    found: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        sides = [
            running.enter_context(_engine(tree.resolve(), Path(name) / which))
            for which, tree in (("this", ROOT), ("other", asked.tree))
        ]
        for engine in sides:  # a warm-up
            _sample(engine, 8)
        for number in range(asked.rounds):
            for chats in CHATS:
                for side in random.sample(range(len(sides)), len(sides)):
                    for unit, value in _sample(sides[side], chats).items():
                        what = f"{chats} chats at once: {unit}"
                        found.setdefault(what, ([], []))[side].append(value)
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    print("this tree / the other one: median of the rounds' ratios (95 % interval)")
    for what, (ours, theirs) in found.items():
        middles = " / ".join(shown(statistics.median(values)) for values in (ours, theirs))
        print(f"{what:50} {ratio(ours, theirs)}   medians {middles}")


def _engine(tree: Path, here: Path) -> contextlib.AbstractContextManager[EngineProcess]:
    here.mkdir()
    python = str(tree / ".venv" / "bin" / "python")
    return running_engine(here, "--threads", "1", python=python)


def _sample(engine: EngineProcess, chats: int) -> dict[str, float]:
    """Return the tokens a second of some chats at once, and what the engine worked for a token."""
    repeats = REPEATS.get(chats, 1)
    began, worked = time.perf_counter(), _processor_seconds(engine)
    for _ in range(repeats):
        asyncio.run(_together(engine.path, chats))
    tokens = repeats * chats * TOKENS
    return {
        RATE: tokens / (time.perf_counter() - began),
        COST: (_processor_seconds(engine) - worked) / tokens * 1e6,
    }


async def _together(path: Path, chats: int) -> None:
    said = await asyncio.gather(*(stream_once(path, BASE) for _ in range(chats)))
    assert said == [TOKENS] * chats, said


def _processor_seconds(engine: EngineProcess) -> float:
    """Return what the engine's process has worked; its clock is named by its id, as clock_getcpuclockid(3) does."""
    return time.clock_gettime((~engine.process.pid << 3) | 2)


if __name__ == "__main__":
    main()
