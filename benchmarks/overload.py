"""What happens when three times as much is asked as the engine can do, and how soon all is well again.

`python -m benchmarks.overload`. The stand-in for the engine has `--slots` places, each request occupies one for
`--service` seconds; the gateway has its default limits. Capacity is measured (closed loop). Then comes load as it comes
(open loop): half of capacity, three times capacity for `--seconds`, half of capacity again. One model of eight gets
half of all requests, so that both limits are met: the model's (429) and the engine's (503).

Fails if anything but 200, 429 and 503 came, or a 429 or 503 without what makes an SDK try again; if less than 70 % of
capacity was served under overload; if what was admitted took longer than the queue that the limits allow; if after
two seconds latency was not back, or an error came.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from benchmarks import results
from benchmarks.open_loop import Asked, Load, chat, closed_loop
from benchmarks.results import percentile
from benchmarks.served import EchoServer, serving

from tunewarden.config import Config

MODELS = 8
TIMES = 3.0
GOODPUT_MIN = 0.7
RECOVERED_SECONDS = 2.0
WINDOW_SECONDS = 0.25
# Back is whoever is within this of what was normal before.
NORMAL_FACTOR, NORMAL_SECONDS = 1.5, 0.03
ANSWER_SECONDS = 60
# How much longer than the queue what was admitted may take: noise of a busy machine.
NOISE_SECONDS = 1.0
RETRY = {429: "model_busy", 503: "engine_busy"}


@dataclass(slots=True)
class Stage:
    """What was asked at one rate."""

    name: str
    rate: float
    seconds: float
    asked: list[Asked] = field(default_factory=list)

    @property
    def served(self) -> list[Asked]:
        """Return what was answered well."""
        return [one for one in self.asked if one.status == 200 and one.is_whole]

    def goodput(self) -> float:
        """Return how many a second were answered well while the stage lasted, its first second aside."""
        began = self.asked[0].due_at
        until = began + self.seconds
        count = sum(1 for one in self.served if began + 1 < one.ended_at <= until)
        return count / (self.seconds - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--service", type=float, default=0.05)
    parser.add_argument("--keep", action="store_true", help="write docs/measured")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        serving(
            Path(name) / "data", workers=1, slots=asked.slots, slot_seconds=asked.service
        ) as server,
    ):
        capacity, stages = uvloop.run(_measured(server, asked.slots, asked.seconds))
    rows, failures = _judged(capacity, stages)
    results.show(rows)
    if asked.keep:
        command = f"python -m benchmarks.overload --seconds {asked.seconds:g} --slots {asked.slots} --service {asked.service:g}"
        note = f"Capacity: {asked.slots} places of {asked.service * 1000:g} ms, measured {capacity:.0f} requests/s."
        results.keep("overload", command, rows, failures=failures, note=note)
    if failures:
        sys.exit("; ".join(failures))


async def _measured(server: EchoServer, slots: int, seconds: float) -> tuple[float, list[Stage]]:
    key = server.owner_key
    models = [server.make_model().id for _ in range(MODELS)]
    load = Load(server.address, lambda _: None)
    count = 0

    def make(due_at: float) -> Asked:
        nonlocal count
        count += 1
        model = models[0] if random.random() < 0.5 else random.choice(models)
        return chat(model, key, f"question {count}", due_at=due_at)

    for model in models:  # loads them
        first = await load.answered(chat(model, key, "loaded", due_at=time.monotonic()))
        assert first.status == 200, first
    capacity = await closed_loop(load, slots * 2, 4, make)
    stages = [
        Stage("half of it", capacity / 2, 5),
        Stage("three times", capacity * TIMES, seconds),
        Stage("half of it again", capacity / 2, 8),
    ]

    def noted(stage: Stage, due_at: float) -> Asked:
        stage.asked.append(make(due_at))
        return stage.asked[-1]

    for stage in stages:
        await load.offer(stage.rate, stage.seconds, lambda at, of=stage: noted(of, at))  # type: ignore[misc]  # mypy infers no lambda with a default
    await load.settled(ANSWER_SECONDS)
    load.close()
    await asyncio.sleep(0.1)
    return capacity, stages


def _judged(capacity: float, stages: list[Stage]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the table and what is not as it must be."""
    before, over, after = stages
    rows: list[tuple[str, ...]] = [
        ("load", "asked/s", "served/s", "p50 ms", "p99 ms", "max ms", "200", "429", "503", "else")
    ]
    failures = []
    for stage in stages:
        took = [one.seconds * 1000 for one in stage.served]
        statuses = Counter(one.status if one.is_whole else 0 for one in stage.asked)
        other = len(stage.asked) - statuses[200] - statuses[429] - statuses[503]
        figures = [percentile(took, at) for at in (50, 99, 100)]
        rows.append(
            (
                stage.name,
                f"{len(stage.asked) / stage.seconds:.0f}",
                f"{stage.goodput():.0f}",
                *(f"{figure:.0f}" for figure in figures),
                *(str(statuses[status]) for status in (200, 429, 503)),
                str(other),
            )
        )
        if other:
            failures.append(f"{stage.name}: {other} answers that are neither 200 nor 429 nor 503")
        if wrong := [one for one in stage.asked if one.status in RETRY and not _tells_more(one)]:
            one = wrong[0]
            said = f"{one.status} {one.headers} {bytes(one.body)!r}"
            failures.append(
                f"{stage.name}: {len(wrong)} refusals do not say when to try again: {said}"
            )
    if any(one.status != 200 for one in before.asked):
        failures.append("half of capacity was not served whole")
    if over.goodput() < GOODPUT_MIN * capacity:
        failures.append(f"overloaded, {over.goodput():.0f}/s of {capacity:.0f}/s were served")
    bound = Config().requests_per_engine_max / capacity + NOISE_SECONDS
    p99 = percentile([one.seconds for one in over.served], 99)
    if p99 > bound:
        failures.append(f"overloaded, p99 is {p99:.2f} s, more than the queue's {bound:.2f} s")
    refused = [one.seconds * 1000 for one in over.asked if one.status in RETRY]
    recovered = _recovered_after(before, after)
    rows += [
        (text, "", "", "", "", "", "", "", "", "")
        for text in (
            f"refusals under overload: p50 {percentile(refused, 50):.1f} ms, p99 {percentile(refused, 99):.1f} ms",
            f"latency and answers as before: {recovered:.2f} s after the overload ended",
        )
    ]
    if not refused:
        failures.append("nothing was refused: that was no overload")
    if recovered > RECOVERED_SECONDS:
        failures.append(f"recovered after {recovered:.2f} s")
    return rows, failures


def _tells_more(one: Asked) -> bool:
    """Whether a refusal has what makes an SDK wait and try again."""
    error = json.loads(one.body)["error"]
    return (
        int(one.headers.get(b"retry-after", b"0")) >= 1
        and one.headers.get(b"x-should-retry") == b"true"
        and set(error) == {"message", "type", "param", "code"}
        and error["code"] == RETRY[one.status]
    )


def _recovered_after(before: Stage, after: Stage) -> float:
    """Return the seconds after which every window was as before: no error, p99 as it was."""
    normal = percentile([one.seconds for one in before.served], 99) * NORMAL_FACTOR
    normal += NORMAL_SECONDS
    began, recovered = after.asked[0].due_at, 0.0
    windows = int(after.seconds / WINDOW_SECONDS)
    for number in range(windows):
        first = began + number * WINDOW_SECONDS
        inside = [one for one in after.asked if first <= one.due_at < first + WINDOW_SECONDS]
        p99 = percentile([one.seconds for one in inside], 99)
        if p99 > normal or any(one.status != 200 for one in inside):
            recovered = (number + 1) * WINDOW_SECONDS
    return recovered


if __name__ == "__main__":
    main()
