"""The cost of an append at three sizes, beside a plain fdatasync of 4 KiB in the same run.

Run: python benchmarks/log.py [directory]. The rounds of all sizes and of the plain write are
interleaved, so that a slow moment of the disk meets all of them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.key import LogSigner

SIZES = (1_000, 100_000, 1_000_000)
ROUNDS = 400
ENTRY_BYTES = 2_000  # about a receipt's envelope
FILLER_BYTES = 16  # full bundles are never read again by an append, so their size is no matter


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as made:
        root = Path(made)
        signer = LogSigner("log.example/benchmark", bytes(32))
        work: dict[str, Callable[[], object]] = {"fdatasync of 4 KiB": plain_write(root / "plain")}
        logs = {size: grown(root / str(size), signer, size) for size in SIZES}
        for size, log in logs.items():
            work[f"append at {size:,}"] = appender(log)
        for size, log in logs.items():
            work[f"open at {size:,}"] = opener(root / str(size), signer)
            work[f"inclusion proof at {size:,}"] = prover(log)
        samples: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, once in work.items():
                started = time.perf_counter()
                once()
                samples[name].append(time.perf_counter() - started)
    for name, seconds in samples.items():
        seconds.sort()
        p50, p99 = seconds[ROUNDS // 2] * 1e3, seconds[ROUNDS * 99 // 100] * 1e3
        print(f"{name:<28} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms")


def grown(directory: Path, signer: LogSigner, size: int) -> DirectoryLog:
    started = time.perf_counter()
    log = DirectoryLog.create(directory, signer)
    for start in range(0, size, 65_536):
        batch = range(start, min(size, start + 65_536))
        log.append_all([b"%0*d" % (FILLER_BYTES, number) for number in batch], since=start)
    print(f"made a log of {size:,} entries in {time.perf_counter() - started:.1f} s")
    return log


def appender(log: DirectoryLog) -> Callable[[], object]:
    # One caller knows the size from its database, so asking for it is not part of an append.
    sizes = iter(range(log.size(), log.size() + ROUNDS))
    return lambda: log.append(os.urandom(ENTRY_BYTES), since=next(sizes))


def opener(directory: Path, signer: LogSigner) -> Callable[[], object]:
    return lambda: DirectoryLog(directory, signer)


def prover(log: DirectoryLog) -> Callable[[], object]:
    size = log.size()
    return lambda: log.inclusion_proof(size // 3, size)


def plain_write(path: Path) -> Callable[[], object]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(descriptor, bytes(4096), 0)

    def once() -> None:
        os.pwrite(descriptor, os.urandom(4096), 0)
        os.fdatasync(descriptor)

    return once


if __name__ == "__main__":
    main()
