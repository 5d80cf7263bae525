"""What 10,000 silent streams weigh on one worker, and how long it takes to cut them all by one DELETE.

`python -m benchmarks.idle_streams [--streams 10000]`. Each stream has had one chunk, and then one more each `--each`
seconds. Fails if the worker weighs more than 400 MB, a stream was not served, or one was not cut.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from benchmarks import results
from benchmarks.open_loop import Asked, Load, chat, request
from benchmarks.served import EchoServer, serving
from benchmarks.weighing import Weight, weight

from tunewarden.config import Config
from tunewarden.server.worker import within

LIMIT_BYTES = 400e6
OPENED_A_SECOND = 1000
OPEN_SECONDS = 120
CUT_SECONDS = 60
OTHERS = 20
SETTLED_SECONDS = 3
# Connections for the changes, and for whoever starts the server.
SPARE = 4
MIB = 2**20


@dataclass(slots=True)
class Found:
    """What was seen. Times are seconds."""

    streams: int
    weights: dict[str, Weight] = field(default_factory=dict)
    begun: int = 0
    opened_seconds: float = 0.0
    idle_cpu: float = 0.0
    delete_seconds: float = 0.0
    last_seconds: float = 0.0
    ends: dict[str, int] = field(default_factory=dict)
    others_ended: int = 0
    is_same_worker: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--each", type=float, default=20, help="seconds between two chunks")
    parser.add_argument("--seconds", type=float, default=30, help="how long they stay")
    parser.add_argument("--keep", action="store_true", help="write docs/measured")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    streams = within(Config(connections_max=asked.streams + OTHERS + SPARE), most).connections_max
    streams -= OTHERS + SPARE
    note = ""
    if streams < asked.streams:
        note = f"This system gives a process {most} descriptors, and a stream needs two: {streams} streams."
        print(note)
    settings: dict[str, object] = {
        "requests_per_engine_max": 2 * asked.streams,
        "requests_per_model_max": 2 * asked.streams,
    }
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name) / "data", workers=1, settings=settings) as server,
    ):
        found = uvloop.run(_measured(server, streams, asked.each, asked.seconds))
    rows, failures = _rows(found), _failures(found)
    results.show(rows)
    if asked.keep:
        command = f"python -m benchmarks.idle_streams --streams {asked.streams} --each {asked.each:g} --seconds {asked.seconds:g}"
        results.keep("idle_streams", command, rows, failures=failures, note=note)
    if failures:
        sys.exit("; ".join(failures))


async def _measured(server: EchoServer, streams: int, each: float, seconds: float) -> Found:
    found, key = Found(streams), server.owner_key
    (pid,) = server.workers()
    model, other = (server.make_model().id for _ in range(2))
    load = Load(server.address, lambda _: None)
    for name in (model, other):  # loads them
        first = await load.answered(chat(name, key, "loaded", due_at=time.monotonic()))
        assert first.status == 200, first

    def stream(of: str, at: float) -> Asked:
        return chat(of, key, "idle", due_at=at, stream=True, chunks=10**9, pause=each)

    others = [stream(other, time.monotonic()) for _ in range(OTHERS)]
    for one in others:
        load.send(one)
    await _until(lambda: all(one.body for one in others), OPEN_SECONDS)
    found.weights["before"] = _weight(pid)
    began = time.monotonic()
    asked = await _opened(load, streams, lambda at: stream(model, at))
    found.begun = sum(1 for one in asked if one.status == 200 and one.body)
    found.opened_seconds = time.monotonic() - began
    found.weights["all have begun"] = first_weight = _weight(pid)
    idle_from = time.monotonic()
    await asyncio.sleep(seconds)
    found.weights[f"{seconds:g} s later"] = last = _weight(pid)
    found.idle_cpu = (last.cpu_seconds - first_weight.cpu_seconds) / (time.monotonic() - idle_from)
    await _delete(server, load, model, [one for one in asked if not one.ended_at], found)
    found.others_ended = sum(1 for one in others if one.ended_at)
    found.is_same_worker = list(server.workers()) == [pid]
    load.close()
    if found.is_same_worker:
        await asyncio.sleep(SETTLED_SECONDS)
        found.weights["all are cut"] = _weight(pid)
        # What was freed is used again: a second time weighs no more.
        again = await _opened(load, streams, lambda at: stream(other, at))
        found.weights["as many again"] = _weight(pid)
        found.others_ended += sum(1 for one in again if one.ended_at)
    return found


async def _opened(load: Load, streams: int, make: Callable[[float], Asked]) -> list[Asked]:
    """Open streams and return them when each has its first chunk, or when that takes too long."""
    asked: list[Asked] = []

    def noted(at: float) -> Asked:
        asked.append(make(at))
        return asked[-1]

    await load.offer(OPENED_A_SECOND, streams / OPENED_A_SECOND, noted)
    await _until(lambda: all(one.body or one.ended_at for one in asked), OPEN_SECONDS)
    return asked


async def _delete(
    server: EchoServer, load: Load, model: str, under_way: list[Asked], found: Found
) -> None:
    """DELETE a model and note how its streams end."""
    data = request("DELETE", f"/v1/models/{model}", server.owner_key)
    deletion = await load.answered(Asked(data, time.monotonic()))
    assert deletion.status == 200, deletion
    found.delete_seconds = deletion.ended_at - deletion.sent_at
    await _until(lambda: all(one.ended_at for one in under_way), CUT_SECONDS)
    last = max((one.ended_at for one in under_way), default=0)
    found.last_seconds = last - deletion.sent_at
    for one in under_way:
        end = _end(one)
        found.ends[end] = found.ends.get(end, 0) + 1


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:  # noqa: ASYNC110  each piece would wake it
        await asyncio.sleep(0.05)


def _end(one: Asked) -> str:
    if not one.ended_at:
        return "never ended"
    if one.is_whole and b'"code": "model_deleted"' in one.body:
        return "told that the model was deleted"
    return "whole without an error" if one.is_whole else "connection closed"


def _weight(pid: int) -> Weight:
    found = weight(pid)
    assert found is not None, "the worker is gone"
    return found


def _rows(found: Found) -> list[tuple[str, ...]]:
    before = found.weights["before"]
    rows: list[tuple[str, ...]] = [("the worker", "RSS MiB", "PSS MiB", "KiB a stream", "files")]
    for when, one in found.weights.items():
        each = (one.rss_mib - before.rss_mib) * 1024 / max(1, found.begun)
        shown = "" if one is before else f"{each:.1f}"
        rows.append((when, f"{one.rss_mib:.0f}", f"{one.pss_mib:.0f}", shown, str(one.descriptors)))
    ends = ", ".join(f"{count} {what}" for what, count in found.ends.items())
    for what, value in (
        ("streams that began", f"{found.begun} in {found.opened_seconds:.1f} s"),
        ("processors, while they are idle", f"{found.idle_cpu:.2f}"),
        ("DELETE of their model: answered after", f"{found.delete_seconds * 1000:.0f} ms"),
        ("last stream closed after", f"{found.last_seconds * 1000:.0f} ms"),
        ("how they ended", ends),
        (
            "streams on another model",
            f"{OTHERS - found.others_ended} of {OTHERS} go on",
        ),
    ):
        rows.append((what, value, "", "", ""))
    return rows


def _failures(found: Found) -> list[str]:
    heaviest = max(one.rss_mib for one in found.weights.values()) * MIB
    failures = []
    if heaviest > LIMIT_BYTES:
        failures.append(f"the worker weighs {heaviest / 1e6:.0f} MB, more than 400")
    if found.begun < found.streams:
        failures.append(f"only {found.begun} of {found.streams} streams began")
    if sum(found.ends.values()) != found.ends.get("told that the model was deleted", 0):
        failures.append(f"not all streams were cut in order: {found.ends}")
    if found.others_ended or not found.is_same_worker:
        failures.append("streams on another model ended, too")
    return failures


if __name__ == "__main__":
    main()
