"""vLLM with the plugin beside stock vLLM: tokens a second of one adapter, in alternation.

`make test-vllm` first; then `python -m benchmarks.vllm_plugin [--rounds N] [--starts N] [--keep]`. Both run at once and
answer in turns of seconds, in random order; a round is a turn of each. Tokens a second of the processor time of all
processes of a vLLM are the steadier figure on a busy machine.
"""

import argparse
import json
import os
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import results
from benchmarks.peers.ratios import ratio
from tests.support import demo_models
from tests.vllm.running import PLUGIN, Vllm, events_in, running

STREAMS = 8
TOKENS = 128
GOAL = 0.98
UPDATING = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
TICKS = os.sysconf("SC_CLK_TCK")
# Tokens a second, and tokens a second of processor time.
Speed = tuple[float, float]


def main() -> None:
    """Measure, print, and keep if that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm_plugin")
    parser.add_argument("--rounds", type=int, default=20, help="after each start")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--vllm", default="0.32", help="the minor version that was installed")
    parser.add_argument("--keep", action="store_true", help="write docs/measured")
    asked = parser.parse_args()
    program = Path(".cache").resolve() / f"vllm-{asked.vllm}" / "venv" / "bin" / "vllm"
    found: dict[bool, list[Speed]] = {True: [], False: []}
    for _ in range(asked.starts):
        _measure(program, asked.rounds, found)
    rows: list[tuple[str, ...]] = [("tokens a second", "stock", "with the plugin", "ratio")]
    failures = []
    for name, at in (("of time", 0), ("of processor time", 1)):
        stock, ours = ([speed[at] for speed in found[has]] for has in (False, True))
        compared = ratio(ours, stock)
        assert compared is not None
        medians = (f"{results.percentile(side, 50):.0f}" for side in (stock, ours))
        rows.append((name, *medians, str(compared)))
        if compared.low < GOAL:
            what = "missed" if compared.high < GOAL else "not shown: the interval is too wide"
            failures.append(f"{compared} {name} ({what})")
    results.show(rows)
    if asked.keep:
        command = f"python -m benchmarks.vllm_plugin --starts {asked.starts} --rounds {asked.rounds} --vllm {asked.vllm}"
        note = f"{asked.starts * asked.rounds} rounds. {results.load()}"
        results.keep("vllm_plugin", command, rows, failures=failures, note=note)


def _measure(program: Path, rounds: int, found: dict[bool, list[Speed]]) -> None:
    """Start both, and add what each does in each round."""
    with ExitStack() as stack:
        both = {}
        for has_plugin in random.sample([True, False], 2):
            flags, more = (PLUGIN, None) if has_plugin else ((), UPDATING)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            started = running(program, directory, *flags, more=more)
            vllm = both[has_plugin] = stack.enter_context(started)
            _load(vllm, has_plugin=has_plugin)
            _turn(vllm)
        for _ in range(rounds):
            for has_plugin in random.sample([True, False], 2):
                found[has_plugin].append(_turn(both[has_plugin]))


def _load(vllm: Vllm, *, has_plugin: bool) -> None:
    adapter = demo_models.adapter_dir("zebra")
    if has_plugin:
        vllm.has_lease()
        vllm.load("m_1", adapter)
    else:
        body = json.dumps({"lora_name": "m_1", "lora_path": str(adapter)}).encode()
        assert vllm.ask("POST", "/v1/load_lora_adapter", body)[0] == 200


def _turn(vllm: Vllm) -> Speed:
    """Stream to some clients at once, one token a chunk."""
    counts = [0] * STREAMS

    def read(number: int) -> None:
        counts[number] = len(events_in(vllm.stream("m_1", TOKENS).rest()))

    used, began = _processor_seconds(vllm), time.monotonic()
    threads = [threading.Thread(target=read, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, used = time.monotonic() - began, _processor_seconds(vllm) - used
    assert min(counts) >= TOKENS // 2
    return sum(counts) / took, sum(counts) / used


def _processor_seconds(vllm: Vllm) -> float:
    total = 0
    for pid in vllm.processes():
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


if __name__ == "__main__":
    main()
