"""Deletions killed at any moment, in forked processes over a real data directory on tmpfs.

Each life starts as the server does (recovery, then what is unfinished), judges what the lives before
it left, and then imports and deletes until it is killed. What was acknowledged stands in shared
memory, with the digest of the receipt.
"""

import argparse
import hashlib
import mmap
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support import servers

from tunewarden import app as composition
from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.deletion import records
from tunewarden.deletion.requests import Attempt
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller
from tunewarden.recovery_at_start import recover
from tunewarden.registry import models
from tunewarden.registry.artifacts import ArtifactKind, State, fields_of
from tunewarden.registry.models import Model
from tunewarden_receipts import receipt
from tunewarden_receipts.leaf import DeletionLeaf
from tunewarden_receipts.statement import BlobsErased, Deleted

KILLS_PER_DIRECTORY = 100
MODELS_MAX = 4096
# A life is killed within so many times what an import and a deletion take on this machine, as busy as it is.
LIFE_OPERATIONS_MAX = 3
MODES = ("server", "acknowledges-early", "does-not-recover")
FORK = multiprocessing.get_context("fork")
READY, TOOK_MICROS, JUDGED = MODELS_MAX, MODELS_MAX + 1, MODELS_MAX + 2


@dataclass
class Judged:
    """What a judgement found. See `violations` for what should be 0."""

    deleted: int = 0
    active: int = 0
    resurrected: int = 0
    half_deleted: int = 0
    other_receipts: int = 0
    wrong_leaves: int = 0
    remnants: int = 0
    unused_keys: int = 0

    @property
    def violations(self) -> int:
        wrong = self.resurrected + self.half_deleted + self.other_receipts
        return wrong + self.wrong_leaves + self.remnants


class Lives:
    """One data directory and everything that happened on it."""

    def __init__(self, directory: Path, mode: str) -> None:
        self.config = Config(data=directory / "data", scratch=directory)
        self.mode = mode
        # Word n: what was acknowledged of model n, as the head of its receipt's digest.
        self.words = memoryview(mmap.mmap(-1, 8 * (MODELS_MAX + 16))).cast("Q")

    def prepare(self) -> None:
        servers.prepare_local_base(self.config.data)
        app, caller = self._started()
        for _ in range(2):  # the first one is slower
            began = time.monotonic()
            self._delete(app, caller, servers.import_adapter(app, self._key()))
            self.words[TOOK_MICROS] = int((time.monotonic() - began) * 1_000_000)

    @property
    def seconds_max(self) -> float:
        """How long a life may last after its start."""
        return LIFE_OPERATIONS_MAX * int(self.words[TOOK_MICROS]) / 1_000_000

    def live(self) -> None:
        app, caller = self._started()
        found = self._judge(app)
        for slot, count in enumerate(vars(found).values()):
            self.words[JUDGED + slot] = count
        self.words[READY] = 1
        left = [model for page in models.pages(app.database, caller) for model in page]
        for model in left:
            self._delete(app, caller, model)
        while True:
            self._delete(app, caller, servers.import_adapter(app, self._key()))

    def judge_whole(self) -> None:
        app, _ = self._started()
        found = self._judge(app)
        _judge_leaves(app, found)
        for remnant in composition.inventory(app).remnants(is_running=False):
            # A key that was made and never used opens nothing; `doctor --sweep` finds it.
            is_unused_key = remnant.place == "keyring" and remnant.can_be_swept
            found.unused_keys += is_unused_key
            found.remnants += not is_unused_key
        for slot, count in enumerate(vars(found).values()):
            self.words[JUDGED + slot] = count

    @property
    def judged(self) -> Judged:
        return Judged(*(self.words[JUDGED + slot] for slot in range(len(vars(Judged())))))

    def _started(self) -> tuple[App, Caller]:
        app = open_app(self.config, migrate=True)
        if self.mode != "does-not-recover":
            recover(app)
            assert app.executor.resume() == 0
        return app, keys.authenticate(app.database, self._key(), "req_test")

    def _key(self) -> str:
        return self.config.owner_key.read_text().strip()

    def _delete(self, app: App, caller: Caller, model: Model) -> None:
        if self.mode == "acknowledges-early":
            self.words[model.n] = 1
        deletion = app.executor.delete(caller, ArtifactKind.MODEL, model.id, Attempt())
        self.words[model.n] = _head(records.receipt_of(deletion))
        app.executor.resume()

    def _judge(self, app: App) -> Judged:
        found = Judged()
        with app.database.read() as tx:
            rows = tx.rows(
                "SELECT m.n, m.state, d.receipt FROM artifacts m LEFT JOIN deletions d ON d.artifact_n = m.n"
            )
        for n, state, stored in rows:
            said = self.words[n]
            if state == State.DELETED:
                found.deleted += 1
                found.other_receipts += said != 0 and said != _head(stored)
            elif said:
                found.resurrected += 1
            elif state == State.ACTIVE and _is_readable(app, n):
                found.active += 1
            else:
                found.half_deleted += 1
        return found


def _judge_leaves(app: App, found: Judged) -> None:
    """One leaf for each deletion and one for its blobs; each receipt verifies."""
    log, signer = app.open_log()
    leaves: Counter[tuple[bool, str]] = Counter()
    for _, entry in log.entries():
        facts = receipt.verify_entry(entry, signer.public_pem())
        if isinstance(facts, Deleted | BlobsErased):
            leaves[isinstance(facts, DeletionLeaf), facts.deletion_id] += 1
    with app.database.read() as tx:
        rows = tx.rows("SELECT id, receipt FROM deletions")
    for deletion_id, stored in rows:
        receipt.verify(stored, signer.public_pem())
        found.wrong_leaves += leaves[True, deletion_id] != 1 or leaves[False, deletion_id] != 1
    found.wrong_leaves += len(leaves) != 2 * len(rows)


def _is_readable(app: App, n: int) -> bool:
    with app.database.read() as tx:
        row = tx.row(f"SELECT {models.COLUMNS} {models.FROM} WHERE a.n = :n", n=n)
    assert row is not None
    with tempfile.TemporaryDirectory(dir="/dev/shm") as plain:
        app.imports.unseal(models.Model(*fields_of(row)), Path(plain))
    return True


def _head(text: bytes) -> int:
    return int.from_bytes(hashlib.sha256(text).digest()[:7]) + 2


def run(mode: str, *, seed: int, kills: int, minutes: float = 60) -> tuple[int, Judged]:
    """Kill `kills` lives or until the first violation; return how many, and the sums of what was found."""
    _load_once()
    total = Judged()
    done = 0
    until = time.monotonic() + minutes * 60
    while done < kills and total.violations == 0 and time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="tunewarden-kill-", dir="/dev/shm") as name:
            lives = Lives(Path(name), mode)
            _to_the_end(lives.prepare)
            numbers = random.Random(f"{seed} {done}")
            count = min(KILLS_PER_DIRECTORY, kills - done)
            for _ in range(count):
                done += 1
                _kill_one(lives, numbers)
                if lives.judged.violations:
                    break
            else:
                _to_the_end(lives.judge_whole)
            for slot, value in vars(lives.judged).items():
                setattr(total, slot, getattr(total, slot) + value)
    return done, total


def _load_once() -> None:
    """Load here what an import and a deletion load late: lives are forked, and too short to load it each."""
    with tempfile.TemporaryDirectory(prefix="tunewarden-kill-", dir="/dev/shm") as name:
        Lives(Path(name), "server").prepare()


def _kill_one(lives: Lives, numbers: random.Random) -> None:
    lives.words[READY] = 0
    life = FORK.Process(target=lives.live)
    life.start()
    # One in five dies while it starts; the others at any moment of an import or a deletion.
    while numbers.random() > 0.2 and not lives.words[READY]:
        if life.exitcode is not None:
            raise AssertionError("a life ended by itself")
        time.sleep(0.0005)
    time.sleep(numbers.random() * lives.seconds_max)
    os.kill(life.pid or 0, signal.SIGKILL)
    life.join()
    assert life.exitcode == -signal.SIGKILL, "a life ended by itself"


def _to_the_end(target: object) -> None:
    process = FORK.Process(target=target)  # type: ignore[arg-type]  # any callable
    process.start()
    process.join()
    assert process.exitcode == 0


def main() -> None:
    """Print one line; fail on a violation, or on a control that saw none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=60)
    asked = parser.parse_args()
    began = time.monotonic()
    kills, found = run(asked.mode, seed=asked.seed, kills=asked.kills, minutes=asked.minutes)
    took = time.monotonic() - began
    counts = " ".join(f"{name.replace('_', '-')} {count}" for name, count in vars(found).items())
    print(f"killed-deletions {asked.mode} seed {asked.seed} kills {kills} {counts} in {took:.0f} s")
    sys.exit(0 if (found.violations > 0) is (asked.mode != "server") else 1)


if __name__ == "__main__":
    main()
