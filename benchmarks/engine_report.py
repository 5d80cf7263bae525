"""What benchmarks.engine_peers found last (docs/engine.json), as a row of goals and a section of the page."""

import json
import statistics
from typing import Any

from benchmarks.peers import install
from benchmarks.peers.ratios import Ratio, ratio, shown
from benchmarks.peers.sampling import DISTURBED

OURS, VLLM = "Tunewarden", "vLLM"
PEFT_ONE_BY_ONE, PEFT_MIXED = "peft, one by one", "peft, mixed batch"
REQUESTS = 32
KEPT = install.ROOT / "docs" / "engine.json"
# With fewer quiet rounds than this, the others count too, and a `~` says so.
QUIET_ROUNDS_MIN = 3
NOISY = " ~"
WHAT = {
    "demo": "the demo's base (4 M parameters)",
    "large": "a random base of 97 M parameters",
}
Found = dict[str, Any]


def keep(found: Found) -> None:
    """Write it; a base that was not measured this time keeps what it had."""
    before = last()
    bases = {**(before["bases"] if before else {}), **found["bases"]}
    KEPT.write_text(json.dumps({**found, "bases": bases}, indent=1) + "\n", "utf-8")


def last() -> Found | None:
    """Return what was kept, if anything was."""
    if not KEPT.exists():
        return None
    found: Found = json.loads(KEPT.read_text("utf-8"))
    return found


def measured(found: Found) -> str:
    """Return the ratios that stand beside the goals."""
    said = []
    for name, base in found["bases"].items():
        against = [
            f"{side} {compared}"
            for side in (VLLM, PEFT_ONE_BY_ONE, PEFT_MIXED)
            if (compared := _against(base, side))
        ]
        said.append(f"{name} base: {', '.join(against)}")
    return "; ".join(said)


def section(found: Found) -> str:
    """Return the section of the page."""
    how = (
        f"Measured on {found['day']}: {found['machine']}. {REQUESTS} requests at once, each on an adapter of its own, "
        "float32, greedy, no prefix reuse. Every side has one thread and processor 0 to itself; the client is on "
        "processor 1. In every round each side is measured once, in random order. *x it* is how many times faster we are, with "
        "the 95 % interval of a bootstrap over the rounds."
    )
    parts = ["## Embedded engine", how]
    for name, base in found["bases"].items():
        rows = [_row(base, side) for side in base["samples"]]
        heads = ("side", "tokens/s", "CPU ms a token", "x it", "quiet rounds", "version")
        lines = [heads, ("---",) * len(heads), *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"### {WHAT[name]}, {base['tokens']} tokens each\n\n{table}")
    if not all(VLLM in base["samples"] for base in found["bases"].values()):
        parts.append("Where vLLM is missing it was not there to be measured.")
    return "\n\n".join(parts)


def _row(base: Found, side: str) -> tuple[str, ...]:
    samples, _ = _counted(base, side)
    counted = [one for one in samples if one]
    tokens = base["tokens"] * REQUESTS
    quiet = sum(one["disturbance"] < DISTURBED for one in base["samples"][side])
    return (
        side,
        shown(statistics.median(one["rate"] for one in counted)),
        shown(statistics.median(1000 * one["cpu_seconds"] / tokens for one in counted)),
        "" if side == OURS else _against(base, side),
        f"{quiet} of {len(samples)}",
        base["versions"][side],
    )


def _against(base: Found, side: str) -> str:
    """Return how many times faster we are; "" if it was not measured."""
    if side not in base["samples"]:
        return ""
    (mine, is_noisy), (other, is_other_noisy) = _counted(base, OURS), _counted(base, side)
    rates = [[one["rate"] if one else None for one in samples] for samples in (mine, other)]
    compared: Ratio | None = ratio(rates[0], rates[1])
    return f"{compared}{NOISY if is_noisy or is_other_noisy else ''}" if compared else ""


def _counted(base: Found, side: str) -> tuple[list[Found | None], bool]:
    """Return a sample a round, None for one that does not count; and whether disturbed ones count."""
    samples: list[Found] = base["samples"][side]
    quiet = [one if one["disturbance"] < DISTURBED else None for one in samples]
    if sum(one is not None for one in quiet) < min(QUIET_ROUNDS_MIN, len(samples)):
        return [*samples], True
    return quiet, False
