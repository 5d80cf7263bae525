"""vLLM with the plugin beside stock vLLM: tokens a second of one adapter, in alternation.

`make test-vllm` first; then `python -m benchmarks.vllm_plugin [--rounds N]`. One vLLM runs at a time, so a round is two
starts. Tokens a second of the processor time of all its processes are the steadier figure on a busy machine.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.support import demo_models
from tests.vllm.running import PLUGIN, Vllm, events_in, running

STREAMS = 8
TOKENS = 256
TURNS = 6
UPDATING = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm_plugin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", default="0.32", help="the minor version that was installed")
    options = parser.parse_args()
    program = Path(".cache").resolve() / f"vllm-{options.vllm}" / "venv" / "bin" / "vllm"
    ratios: list[tuple[float, float]] = []
    for number in range(options.rounds):
        order = [True, False] if number % 2 else [False, True]
        found = {has_plugin: _measured(program, has_plugin=has_plugin) for has_plugin in order}
        wall, processor = (found[True][at] / found[False][at] for at in (0, 1))
        ratios.append((wall, processor))
        print(
            f"stock {found[False][0]:.0f} tokens/s, {found[False][1]:.0f} a processor second;"
            f" plugin {found[True][0]:.0f}, {found[True][1]:.0f}; ratio {wall:.3f}, {processor:.3f}",
            flush=True,
        )
    for name, values in zip(("wall", "processor"), zip(*ratios, strict=True), strict=True):
        print(
            f"{name}: median ratio {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        )


def _measured(program: Path, *, has_plugin: bool) -> tuple[float, float]:
    """Return tokens a second, and tokens a second of processor time."""
    adapter = demo_models.adapter_dir("zebra")
    flags, more = (PLUGIN, None) if has_plugin else ((), UPDATING)
    with (
        tempfile.TemporaryDirectory() as directory,
        running(program, Path(directory), *flags, more=more) as vllm,
    ):
        if has_plugin:
            vllm.load("m_1", adapter)
        else:
            body = json.dumps({"lora_name": "m_1", "lora_path": str(adapter)}).encode()
            assert vllm.ask("POST", "/v1/load_lora_adapter", body)[0] == 200
        _turn(vllm)
        used, began = _processor_seconds(vllm), time.monotonic()
        tokens = sum(_turn(vllm) for _ in range(TURNS))
        return tokens / (time.monotonic() - began), tokens / (_processor_seconds(vllm) - used)


def _turn(vllm: Vllm) -> int:
    """Stream to some clients at once; return the number of chunks, one a token."""
    counts = [0] * STREAMS

    def read(number: int) -> None:
        counts[number] = len(events_in(vllm.stream("m_1", TOKENS).rest()))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(counts) >= TOKENS // 2
    return sum(counts)


def _processor_seconds(vllm: Vllm) -> float:
    total = 0
    for pid in vllm.processes():
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


if __name__ == "__main__":
    main()
