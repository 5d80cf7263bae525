"""How long a DELETE takes on one host, and when the last output of its model comes after it was sent.

Real server, its workers and its durable database; a stand-in for the engine, which costs next to
nothing. Eight streams on other models run all the time. Run it as `python -m benchmarks.revocation`.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.chaos.fake_engine_server import FakeEngineServer, serving
from tests.chaos.streams import Exchange, Watcher

OTHERS = 8
VICTIM_STREAMS = 2
LAST_OUTPUT = "last output after the DELETE was sent"
# What the embedded engine gives eight streams on the machine of docs/evidence.md.
CHUNK_SECONDS = 0.008


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--deletes", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measured(Path(directory), workers=asked.workers, deletes=asked.deletes)
    print(f"{asked.workers} workers, {asked.deletes} deletes each, times in milliseconds")
    for what, seconds in found.items():
        _show(what, seconds)


def measured(directory: Path, *, workers: int, deletes: int) -> dict[str, list[float]]:
    """Return the seconds that each took, by what was measured."""
    found = {}
    with serving(directory / "data", workers=workers) as server:
        watcher = Watcher(server)
        found["DELETE, nothing else runs"] = [
            _delete(server, watcher, streams=0)[0] for _ in range(deletes)
        ]
        kept = server.make_model()
        others = [watcher.chat(kept.id, chunks=10**9, pause=CHUNK_SECONDS) for _ in range(OTHERS)]
        watcher.wait_for_chunks(others, 1)
        found[f"DELETE, {OTHERS} streams on another model"] = [
            _delete(server, watcher, streams=0)[0] for _ in range(deletes)
        ]
        busy, last = [], []
        for _ in range(deletes):
            took, tokens = _delete(server, watcher, streams=VICTIM_STREAMS)
            busy.append(took)
            last += tokens
        found[f"DELETE, {VICTIM_STREAMS} streams on the model, {OTHERS} on another"] = busy
        found[LAST_OUTPUT] = last
        assert all(other.ended_at is None for other in others), "a stream on another model broke"
        watcher.close()
    return found


def _delete(
    server: FakeEngineServer, watcher: Watcher, *, streams: int
) -> tuple[float, list[float]]:
    """Delete a new model; return how long it took, and when each stream's last output came."""
    model = server.make_model()
    running = [watcher.chat(model.id, chunks=10**9, pause=CHUNK_SECONDS) for _ in range(streams)]
    watcher.wait_for_chunks(running, 3)
    deletion: Exchange = watcher.delete(model.id)
    watcher.watch(deletion, *running, seconds=15)
    assert deletion.status == 200
    assert all(stream.error_code == "model_deleted" for stream in running)
    assert deletion.ended_at is not None
    # Before the DELETE was sent counts as at once: nothing came after it.
    last = [max(0.0, stream.last_content_at() - deletion.sent_at) for stream in running]
    return deletion.ended_at - deletion.sent_at, last


def _show(what: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    p50 = statistics.median(ordered)
    print(f"{what}: p50 {p50 * 1000:.1f}  p99 {p99 * 1000:.1f}  max {ordered[-1] * 1000:.1f}")


if __name__ == "__main__":
    main()
