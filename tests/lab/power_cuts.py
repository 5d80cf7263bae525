"""What power cuts leave of the database after a row of deletions, and what that is worth."""

import gc
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
from tests.lab.power import CuttingDatabase, Power
from tests.lab.recording_vfs import Files, Op, RecordingVfs, power_cuts
from tests.lab.world import Made, Parts, World, copied

from tunewarden.clock import Clock
from tunewarden.identity.policy import Caller

DATABASE = "tunewarden.sqlite"
# So that the recording holds checkpoints too: the default comes after a thousand pages.
CHECKPOINT_PAGES = 40
States = dict[str, tuple[str, bytes | None]]
QUERY = (
    "SELECT m.id, m.state, d.receipt FROM artifacts m LEFT JOIN deletions d ON d.artifact_n = m.n"
)


class Recorded(Parts):
    """Opens the database through the recording VFS, at a chosen `synchronous`."""

    def __init__(self, vfs: RecordingVfs, synchronous: str) -> None:
        self._vfs, self._synchronous = vfs, synchronous

    def database(self, path: Path, clock: Clock, power: Power) -> CuttingDatabase:
        database = CuttingDatabase(path, clock, power, vfs=self._vfs.name)
        connection = database._connection()
        if self._synchronous:
            connection.execute(f"PRAGMA synchronous={self._synchronous}").fetchall()
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}").fetchall()
        return database


@dataclass
class Recording:
    """What was written during some deletions, and what each commit had acknowledged by then."""

    start: Files
    ops: list[Op]
    acknowledged: list[tuple[int, States]]


def record(original: World, owner: Caller, models: list[Made], synchronous: str) -> Recording:
    """Delete the models on a copy of a closed world, and return what was written meanwhile."""
    vfs = RecordingVfs(f"recording-{synchronous}")
    try:
        with copied(original, parts=Recorded(vfs, synchronous)) as world:
            start = {
                path.name: bytearray(path.read_bytes())
                for path in world.config.data.glob(f"{DATABASE}*")
                if not path.name.endswith("-shm")
            }
            world.open()
            acknowledged: list[tuple[int, States]] = []
            step = world.power.step

            def committed(what: str) -> None:
                step(what)
                if what == "committed":
                    with world.app.database.read() as tx:
                        acknowledged.append((len(vfs.ops), _states(tx.rows(QUERY))))

            world.power.step = committed  # type: ignore[method-assign]  # the test's own step
            for made in models:
                world.delete(owner, made)
                world.resume()
            recording = Recording(start, list(vfs.ops), acknowledged)
            world.close()
            gc.collect()
            return recording
    finally:
        vfs.unregister()


def _states(rows: Sequence[tuple[Any, ...]]) -> States:
    return {model: (state, receipt) for model, state, receipt in rows}


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tunewarden-cut-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _verdict(directory: Path, files: dict[str, bytes], needed: States) -> str:
    """Return what is wrong after a cut, or "sound"."""
    for path in directory.iterdir():
        path.unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    try:
        connection = apsw.Connection(str(directory / DATABASE))
        try:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return "corrupt"
            found = _states(connection.execute(QUERY).fetchall())
        finally:
            connection.close()
    except apsw.Error as error:
        return f"does not open: {type(error).__name__}"
    order = ["active", "deleting", "deleted"]
    for model, (state, receipt) in needed.items():
        now, kept = found.get(model, ("lost", None))
        if now == "lost" or order.index(now) < order.index(state):
            return f"lost an acknowledged commit: {state}"
        if receipt is not None and kept != receipt:
            return "lost a receipt"
    return "sound"


def verdicts_of(recording: Recording, states: int, seed: int) -> Counter[str]:
    """Return how many of the states are sound, and what is wrong with the others."""
    verdicts: Counter[str] = Counter()
    with _directory() as directory:
        needed: States = {}
        waiting = iter([*recording.acknowledged, (len(recording.ops) + 1, {})])
        following = next(waiting)
        for at, files in power_cuts(recording.start, recording.ops, states, seed):
            while following[0] <= at:
                needed, following = following[1], next(waiting)
            verdicts[_verdict(directory, files, needed)] += 1
    return verdicts
