"""The keyring's cost of making and erasing one key, by the number of keys that it holds.

Run: `python benchmarks/keyring.py [--directory DIR] [--keys 1000,100000,1000000] [--rounds 300]`.
The directory must be on the disk to be measured. The sizes take turns, and between them the
yardstick: the plain `fdatasync` of 4 KiB on the same disk.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.artifacts.keyring_format import IDENTITY_BYTES, TOKEN_BYTES


def timed_micros(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


class Measured:
    """One keyring of `count` keys, opened anew after it was filled."""

    def __init__(self, root: Path, count: int) -> None:
        self.count = count
        self.build_seconds = (
            timed_micros(lambda: DirectoryKeyring(LocalDisk(), root).create_many(count)) / 1e6
        )
        self.keyring = DirectoryKeyring(LocalDisk(), root)
        self.recover_seconds = timed_micros(self.keyring.recover) / 1e6
        self.shards = self.keyring.shards()
        self.micros: dict[str, list[float]] = {"create": [], "erase": [], "open": []}

    def round(self, rng: random.Random) -> None:
        """Time one of each."""
        self.micros["create"].append(timed_micros(self.keyring.create))
        victim = self.any_key(rng.choice(self.shards), rng)
        self.micros["open"].append(timed_micros(partial(self.keyring.open, victim)))
        self.micros["erase"].append(timed_micros(partial(self.keyring.erase, victim)))

    def any_key(self, number: int, rng: random.Random) -> str:
        """Return a key of the shard; the ids of a million keys are kept nowhere else."""
        _, ring = self.keyring._read(number)  # noqa: SLF001  the ids are kept nowhere else
        record = rng.randrange(len(ring)) * (TOKEN_BYTES + IDENTITY_BYTES)
        token = ring._records[record : record + TOKEN_BYTES]  # noqa: SLF001  the ids are kept nowhere else
        return f"k{number:06}-{token.decode()}"


class Yardstick:
    """The plain fdatasync of 4 KiB."""

    def __init__(self, path: Path) -> None:
        self.micros: list[float] = []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        self._block = os.urandom(4096)
        os.pwrite(self._file, self._block, 0)
        os.fsync(self._file)

    def round(self) -> None:
        """Time one."""
        self.micros.append(timed_micros(self._sync))

    def _sync(self) -> None:
        os.pwrite(self._file, self._block, 0)
        os.fdatasync(self._file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path.cwd())
    parser.add_argument("--keys", default="1000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        counts = [int(count) for count in options.keys.split(",")]
        rings = [Measured(Path(directory) / str(count), count) for count in counts]
        yardstick = Yardstick(Path(directory) / "yardstick")
        for _ in range(options.rounds):
            for ring in rings:
                ring.round(rng)
                yardstick.round()
    syncs = yardstick.micros
    print(f"fdatasync of 4 KiB: p50 {median(syncs):.0f} us, p99 {p99(syncs):.0f} us")
    print(f"{'keys':>9} {'what':>7} {'p50 us':>8} {'p99 us':>8} {'p50 in fdatasyncs':>18}")
    for ring in rings:
        for what, values in ring.micros.items():
            row = f"{ring.count:>9} {what:>7} {median(values):>8.0f} {p99(values):>8.0f}"
            print(f"{row} {median(values) / median(syncs):>18.1f}")
        print(
            f"{'':>9} filled in {ring.build_seconds:.1f} s, recovered in {ring.recover_seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
