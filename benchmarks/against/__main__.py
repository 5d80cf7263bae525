"""This tree beside another one, in alternation: `python -m benchmarks.against TREE [--rounds 20]`.

TREE is a checkout with its own `.venv` (`git worktree add TREE COMMIT`, `make -C TREE setup`), or this one, to see what
settings cost: `python -m benchmarks.against . --set tokens_per_minute=1000000000` sets it here only. Both servers run at
once, each with one worker on processor 0; load generator and the engine's stand-in are on processor 1. A round takes
one sample of each side, in random order, so that what disturbs the machine disturbs both. Take the ratios only.
`--bulk N` measures only how fast one request deletes N models.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.peers.__main__ import compiled
from benchmarks.peers.ratios import ratio, shown
from benchmarks.peers.requests import SCENARIOS
from benchmarks.peers.sampling import Sampler
from benchmarks.peers.subjects import START_SECONDS, Subject
from tests.support import bases, servers

ROOT = Path(__file__).parents[2]
SERVED = Path(__file__).with_name("served.py")
ROUNDS = 20
SECONDS = 0.8
DELETES_A_ROUND = 5
QUANTITIES = {"rate": "requests/s", "cpu_us": "processor time of a request, µs"}
DELETE = "time of a DELETE, ms"
BULK = "models deleted a second by one request"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, help="a checkout to compare this one with")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--set", action="append", default=[], metavar="SETTING=VALUE", help="here only"
    )
    parser.add_argument("--bulk", type=int, default=0, metavar="N", help="models by one request")
    asked = parser.parse_args()
    pairs = (one.partition("=") for one in asked.set)
    settings = {f"TUNEWARDEN_{name.upper()}": value for name, _, value in pairs}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        here = Path(name)
        stand_in = compiled(here, "mock")
        sides = [
            running.enter_context(_side(tree.resolve(), here / which, stand_in, those))
            for which, tree, those in (("this", ROOT, settings), ("other", asked.tree, {}))
        ]
        sampler = Sampler(compiled(here, "load"), SECONDS, patience_seconds=20.0 * asked.rounds)
        found: dict[str, tuple[list[float | None], list[float | None]]] = {}
        for number in range(asked.rounds):
            taken = _bulk_round(sides, asked.bulk) if asked.bulk else _round(sides, sampler)
            for what, values in taken.items():
                for side, value in enumerate(values):
                    found.setdefault(what, ([], []))[side].append(value)
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
    print("this tree / the other one: median of the rounds' ratios (95 % interval)")
    for what, (ours, theirs) in found.items():
        middles = [
            shown(statistics.median(value for value in values if value is not None))
            for values in (ours, theirs)
        ]
        print(f"{what:60} {ratio(ours, theirs)}   medians {' / '.join(middles)}")


class Side:
    """One tree's server, measured."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._connection = HTTPConnection("127.0.0.1", subject.port, timeout=START_SECONDS)

    def delete(self, model: str) -> float:
        """Return how many milliseconds a DELETE took."""
        began = time.perf_counter()
        self._request("DELETE", f"/v1/models/{model}")
        return (time.perf_counter() - began) * 1000

    def delete_together(self, models: list[str]) -> float:
        """Return how many models a second one request deleted."""
        began = time.perf_counter()
        answer = self._request("POST", "/v1/deletions", json.dumps({"ids": models}).encode())
        took = time.perf_counter() - began
        if answer["counts"] != {"deleted": len(models)}:
            sys.exit(f"{self.subject.name}: {answer}")
        return len(models) / took

    def new_model(self) -> str:
        """Import the tiny adapter over HTTP; return the model's id."""
        adapter = bases.adapter()
        form = bases.form(
            ("base", servers.LOCAL_BASE.encode()),
            ("adapter_config", adapter.config),
            ("adapter_model", adapter.weights),
        )
        return str(self._request("POST", "/v1/models", *form)["id"])

    def _request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.subject.key}", "Content-Type": kind}
        self._connection.request(method, path, body or None, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path}: {answer.status} {text!r}")
        return json.loads(text.splitlines()[-1])


@contextlib.contextmanager
def _side(tree: Path, here: Path, stand_in: Path, settings: dict[str, str]) -> Iterator[Side]:
    """Run a tree's server in its own Python until the block ends."""
    here.mkdir()
    python = str(tree / ".venv" / "bin" / "python")
    command = [python, "-P", str(SERVED), str(here), str(stand_in)]
    environment = {**os.environ, "PYTHONPATH": str(tree), **settings}
    with (here / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            sys.exit(f"the server of {tree} did not start:\n{(here / 'log').read_text()}")
        told = json.loads(said)
        yield Side(Subject(str(tree), **told))
        process.stdin.close()
        process.wait(START_SECONDS)


def _round(sides: list[Side], sampler: Sampler) -> dict[str, list[float | None]]:
    """Return what each side took; None where a request failed, which is said."""
    order = random.sample(range(len(sides)), len(sides))
    found: dict[str, list[float | None]] = {}
    for scenario in (SCENARIOS["json64"], SCENARIOS["sse16"]):
        for side in order:
            sample = sampler.sample(sides[side].subject, scenario)
            if sample.has_failed:
                name = sides[side].subject.name
                print(f"{name}: {sample.failures} failures in {scenario.name}", file=sys.stderr)
            for field, unit in QUANTITIES.items():
                what = f"{scenario.what}: {unit}"
                values = found.setdefault(what, [None] * len(sides))
                values[side] = None if sample.has_failed else getattr(sample, field)
    took: list[list[float]] = [[] for _ in sides]
    for _ in range(DELETES_A_ROUND):
        for side in order:
            took[side].append(sides[side].delete(sides[side].new_model()))
    found[DELETE] = [statistics.median(values) for values in took]
    return found


def _bulk_round(sides: list[Side], count: int) -> dict[str, list[float | None]]:
    """Return how many models a second each side deletes, of so many."""
    found: list[float | None] = [None] * len(sides)
    for side in random.sample(range(len(sides)), len(sides)):
        models = [sides[side].new_model() for _ in range(count)]
        found[side] = sides[side].delete_together(models)
    return {BULK: found}


if __name__ == "__main__":
    main()
