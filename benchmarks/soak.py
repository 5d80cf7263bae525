"""Half an hour at 70 % of capacity while models are imported and deleted, and keys made and revoked.

`python -m benchmarks.soak [--minutes 30] [--workers 2]`. Capacity is measured first, closed loop, with the same requests:
of the whole chain on this machine, the load generator and the engine's stand-in included, because they share its
processors. Then load as it comes (open loop) at 70 % of it. Every answer is checked (`soak_traffic`), and each ten
seconds memory, descriptors and threads of every process of the server. Flat is what, after a warm-up, has a median at
the end within 5 % of that at the beginning.

`--control wrong-answer`, `wrong-model` and `careless` break what is checked, and must be found.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from benchmarks import results
from benchmarks.echo_engine import CONTROLS
from benchmarks.open_loop import closed_loop
from benchmarks.results import percentile
from benchmarks.served import EchoServer, serving
from benchmarks.soak_traffic import Seen, Traffic
from benchmarks.weighing import Weight, role, weight
from tests.chaos import torture
from tests.chaos.torture import EVIDENCE, Row

SHARE = 0.7
CAPACITY_CONNECTIONS, CAPACITY_SECONDS = 64, 8.0
SAMPLE_SECONDS = 10.0
# Until then caches fill. Of half an hour, 5 minutes are compared with the last 5.
WARM_SECONDS, WARM_SHARE_MAX = 180, 0.4
COMPARED_SHARE = 1 / 6
FLAT = 0.05
# Connections come and go with the load; what leaks does so by the minute.
DESCRIPTORS_MORE_MAX = 16
JUDGED = ("worker", "runner", "supervisor")
# So many of all may be refused for a moment in which the machine stood still.
REFUSED_MAX = 0.001
CONTROL_MINUTES = 0.3


@dataclass(slots=True)
class Found:
    """What was seen."""

    capacity: float
    seen: Seen
    weights: dict[int, list[Weight]] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--control", choices=CONTROLS, default="")
    parser.add_argument("--keep", action="store_true", help="write docs/measured and docs/evidence")
    asked = parser.parse_args()
    began = time.monotonic()
    found = _run(asked.minutes, asked.workers, asked.share, asked.control)
    seconds = time.monotonic() - began
    rows = _rows(found)
    results.show(rows)
    for example in found.seen.examples:
        print(f"wrong: {example}")
    failures = _failures(found)
    if asked.keep:
        _keep(asked, found, rows, failures, seconds)
    if failures:
        sys.exit("; ".join(failures))


def _run(minutes: float, workers: int, share: float, control: str) -> Found:
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name) / "data", workers=workers, control=control) as server,
    ):
        return uvloop.run(_measured(server, minutes * 60, share))


async def _measured(server: EchoServer, seconds: float, share: float) -> Found:
    traffic = Traffic(server)
    await traffic.begin()
    capacity = await closed_loop(traffic.load, CAPACITY_CONNECTIONS, CAPACITY_SECONDS, traffic.ask)
    print(f"capacity {capacity:.0f} requests/s; {seconds:.0f} s at {share:.0%} of it", flush=True)
    found = Found(capacity, traffic.seen)
    began = time.monotonic()
    watching = asyncio.create_task(_watch(server, found, began, seconds))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.change(began + seconds))
        tasks.create_task(traffic.load.offer(capacity * share, seconds, traffic.ask))
    left = await traffic.load.settled(30)
    watching.cancel()
    if left:
        found.failures.append(f"{len(left)} requests have no answer after 30 s")
    traffic.load.close()
    return found


async def _watch(server: EchoServer, found: Found, began: float, seconds: float) -> None:
    """Weigh all processes, until cancelled."""
    pause = min(SAMPLE_SECONDS, seconds / 30)
    while True:
        at = time.monotonic() - began
        for pid in await asyncio.to_thread(server.processes):
            one = await asyncio.to_thread(weight, pid, at)
            if one is not None:
                found.roles.setdefault(pid, role(pid))
                found.weights.setdefault(pid, []).append(one)
        took, found.seen.seconds[:-2000] = found.seen.seconds[-2000:], []
        print(
            f"{at:6.0f} s  {sum(found.seen.wrong.values())} wrong, p50 {percentile(took, 50) * 1000:.1f}"
            f" p99 {percentile(took, 99) * 1000:.1f} ms  {_shortly(found)}",
            flush=True,
        )
        await asyncio.sleep(pause)


def _shortly(found: Found) -> str:
    last = [(found.roles[pid], weights[-1]) for pid, weights in found.weights.items()]
    return ", ".join(f"{name} {one.rss_mib:.1f} MiB {one.descriptors}" for name, one in last)


def flatness(weights: list[Weight]) -> dict[str, tuple[float, float]]:
    """Return the medians after the warm-up and at the end, by what was weighed."""
    last = weights[-1].at
    warm, length = min(WARM_SECONDS, last * WARM_SHARE_MAX), last * COMPARED_SHARE
    first = [one for one in weights if warm <= one.at <= warm + length] or weights[:1]
    end = [one for one in weights if one.at >= last - length]
    return {
        name: (
            statistics.median(getattr(one, name) for one in first),
            statistics.median(getattr(one, name) for one in end),
        )
        for name in ("rss_mib", "pss_mib", "descriptors", "threads")
    }


def leaks(name: str, weights: list[Weight]) -> list[str]:
    """Return what is not flat of one process."""
    found = []
    for what, (first, last) in flatness(weights).items():
        if what == "pss_mib":
            continue  # It moves with how many other processes share the same pages: shown, not judged.
        if what == "rss_mib":
            if abs(last - first) > FLAT * first:
                found.append(f"{name}: {what} from {first:.1f} to {last:.1f}")
        elif last - first > DESCRIPTORS_MORE_MAX:
            found.append(f"{name}: {what} from {first:.0f} to {last:.0f}")
    return found


def _failures(found: Found) -> list[str]:
    failures = list(found.failures)
    failures += [f"{count} x {what}" for what, count in found.seen.wrong.items()]
    counts = found.seen.counts
    refused = sum(count for what, count in counts.items() if what.startswith("refused"))
    if refused > REFUSED_MAX * _answers(counts):
        failures.append(f"{refused} were refused")
    kinds = Counter(found.roles[pid] for pid in found.weights)
    seen_last = max(weights[-1].at for weights in found.weights.values())
    for pid, weights in found.weights.items():
        name = found.roles[pid]
        if name not in JUDGED:
            continue
        if weights[-1].at < seen_last or weights[0].at > weights[-1].at / 2:
            failures.append(f"a {name} ended or was started anew (of {kinds[name]})")
        else:
            failures += leaks(name, weights)
    return failures


def _answers(counts: Counter[str]) -> int:
    return counts["streams"] + counts["whole answers"]


def _rows(found: Found) -> list[tuple[str, ...]]:
    counts = found.seen.counts
    rows: list[tuple[str, ...]] = [("what", "first", "last", "change")]
    for pid, weights in sorted(found.weights.items()):
        for what, (first, last) in flatness(weights).items():
            change = f"{(last / first - 1) * 100:+.1f} %" if first else ""
            shown = what.replace("_mib", " MiB").replace("rss", "RSS").replace("pss", "PSS")
            rows.append((f"{found.roles[pid]}: {shown}", f"{first:.1f}", f"{last:.1f}", change))
    rows.append(("capacity, requests/s", f"{found.capacity:.0f}", "", ""))
    rows.append(("answers, all checked", str(_answers(counts)), "", ""))
    rows += [(what, str(count), "", "") for what, count in sorted(counts.items())]
    rows.append(("wrong answers", str(sum(found.seen.wrong.values())), "", ""))
    return rows


def _keep(
    asked: argparse.Namespace,
    found: Found,
    rows: list[tuple[str, ...]],
    failures: list[str],
    seconds: float,
) -> None:
    """Write the table for the page and, with a control that fired, rows of evidence."""
    minutes, workers, share = asked.minutes, asked.workers, asked.share
    command = f"python -m benchmarks.soak --minutes {minutes:g} --workers {workers} --share {share}"
    results.keep("soak", f"{command} --keep", rows, failures=failures)
    counts = found.seen.counts
    printed = f"{_answers(counts)} answers checked, {counts['imports']} imports, {counts['deletes']} deletes, "
    printed += f"{counts['keys revoked']} keys revoked; {os.cpu_count()} processors, {share:.0%} of {found.capacity:.0f}/s"
    result = "FAILED: " + "; ".join(failures) if failures else "0"
    evidence = [
        Row("soak", "no answer is wrong and memory and descriptors stay", printed, result, seconds)
    ]
    for control in CONTROLS:
        began = time.monotonic()
        wrong = _run(CONTROL_MINUTES, workers, share, control).seen.wrong
        evidence.append(
            Row(
                "soak",
                f"control {control}",
                ", ".join(f"{count} x {what}" for what, count in wrong.items()),
                "the control fired" if wrong else "FAILED",
                time.monotonic() - began,
            )
        )
    torture.write(EVIDENCE, evidence)


if __name__ == "__main__":
    main()
