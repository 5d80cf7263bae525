"""Power that goes at the n-th effect: the real database and disks behind a switch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw

from tunewarden.artifacts.disk import InPlaceFile, LocalDisk
from tunewarden.clock import Clock
from tunewarden.db.database import Row, Tx
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.engines.port import EngineControl, Evicted
from tunewarden.serving.fence import Fence, FencedWorker
from tunewarden.transparency.disk import DirectoryLogDisk, Piece
from tunewarden.transparency.key_files import KeyFiles


class PowerCut(BaseException):
    """The process is gone. Not an Exception: nothing may catch it and go on."""


class Power:
    """Counts effects. With `cut_at` = n the n-th does not happen, and nothing after it."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at = cut_at
        self.effects: list[str] = []
        self.dead = False
        self.connections: list[apsw.Connection] = []

    def end(self) -> None:
        """Close what the process had open, as the kernel does. Nothing else does it soon: circles wait for the collector."""
        while self.connections:
            self.connections.pop().close()

    def alive(self) -> None:
        """Raise PowerCut once the power is gone: a dead process does not even read."""
        if self.dead:
            raise PowerCut

    def step(self, what: str) -> None:
        """Stand before an effect."""
        self.alive()
        if len(self.effects) == self.cut_at:
            self.dead = True
            raise PowerCut(what)
        self.effects.append(what)

    def tears_next(self) -> bool:
        """Tell whether the power goes at the next step: what is being written stays half done."""
        return not self.dead and len(self.effects) == self.cut_at


class CuttingDatabase(SqliteDatabase):
    """SQLite whose process can die before each commit, and just after it."""

    def __init__(self, path: Path, clock: Clock, power: Power, *, vfs: str = "") -> None:
        self._power = power
        super().__init__(path, clock, migrate=True, vfs=vfs)

    def _connect(self) -> apsw.Connection:
        connection = super()._connect()
        self._power.connections.append(connection)
        return connection

    @contextmanager
    def read(self) -> Iterator[Tx]:
        self._power.alive()
        with super().read() as tx:
            yield tx

    @contextmanager
    def write(self, *, survives: bool = True, below_floor: bool = False) -> Iterator[Tx]:
        self._power.alive()
        with super().write(survives=survives, below_floor=below_floor) as tx:
            yield tx
            self._power.step("commit")
        self._power.step("committed")

    def peek(self, sql: str, /, **parameters: Any) -> Row | None:
        self._power.alive()
        return super().peek(sql, **parameters)


class CuttingDisk(LocalDisk):
    """The real disk under the keyring and the blobs; a write that is cut stays half done."""

    def __init__(self, power: Power, part: str) -> None:
        self._power = power
        self._part = part

    def read(self, path: Path) -> bytes:
        self._power.alive()
        return super().read(path)

    def make_directory(self, directory: Path) -> None:
        self._power.step(f"{self._part}: make directory")
        super().make_directory(directory)

    def drop_directory(self, directory: Path) -> None:
        self._power.step(f"{self._part}: drop directory")
        super().drop_directory(directory)

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        self._power.step(f"{self._part}: write {path.suffix}")
        data = b"".join(chunks)
        if self._power.tears_next():
            path.write_bytes(data[: len(data) // 2])
        self._power.step(f"{self._part}: torn write {path.suffix}")
        return super().write_new(path, [data])

    @contextmanager
    def open_in_place(self, path: Path) -> Iterator[InPlaceFile]:
        self._power.alive()
        with super().open_in_place(path) as file:
            yield _CuttingFile(self._power, self._part, file)

    def rename(self, source: Path, target: Path) -> None:
        self._power.step(f"{self._part}: rename {target.suffix}")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._power.step(f"{self._part}: unlink {path.suffix}")
        super().unlink(path)

    def sync_directory(self, directory: Path) -> None:
        self._power.step(f"{self._part}: sync directory")
        super().sync_directory(directory)


class _CuttingFile:
    def __init__(self, power: Power, part: str, file: InPlaceFile) -> None:
        self._power, self._part, self._file = power, part, file

    @property
    def size(self) -> int:
        return self._file.size

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        self._power.step(f"{self._part}: overwrite")
        data = b"".join(chunks)
        if self._power.tears_next():
            self._file.overwrite([data[: len(data) // 2]])
        self._power.step(f"{self._part}: torn overwrite")
        self._file.overwrite([data])

    def replace(self, chunks: Iterable[bytes]) -> None:
        self._power.step(f"{self._part}: replace")
        data = b"".join(chunks)
        if self._power.tears_next():
            self._file.overwrite([data[: len(data) // 2]])
        self._power.step(f"{self._part}: torn replacement")
        self._file.replace([data])


class CuttingLogDisk(DirectoryLogDisk):
    """The real disk under the log."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self._power = power

    def read(self, path: Path) -> bytes:
        self._power.alive()
        return super().read(path)

    def extend_synced(self, pieces: Sequence[Piece]) -> None:
        self._power.step("log: extend")
        if self._power.tears_next():
            super().extend_synced(
                [replace(one, data=one.data[: len(one.data) // 2]) for one in pieces]
            )
        self._power.step("log: torn extension")
        super().extend_synced(pieces)

    def rename_synced(self, source: Path, target: Path) -> None:
        self._power.step("log: rename")
        super().rename_synced(source, target)
        self._power.step("log: published")

    def make_directory_synced(self, path: Path) -> None:
        self._power.alive()
        super().make_directory_synced(path)


class CuttingKeyFiles(KeyFiles):
    """The real files of the log's key."""

    def __init__(self, path: Path, power: Power) -> None:
        super().__init__(path)
        self._power = power

    def promote_next(self) -> None:
        self._power.step("log key: promote")
        super().promote_next()

    def _write(self, path: Path) -> None:
        self._power.step(f"log key: write {path.suffix}")
        super()._write(path)

    def _overwrite(self, path: Path) -> None:
        self._power.step(f"log key: overwrite {path.suffix}")
        super()._overwrite(path)
        self._power.step(f"log key: unlink {path.suffix}")

    def _sync(self) -> None:
        self._power.step("log key: sync")
        super()._sync()


class CuttingFence:
    """A fence whose caller can die before it and after it."""

    def __init__(self, power: Power, fence: Fence) -> None:
        self._power, self._fence = power, fence

    def join(self) -> None:
        self._fence.join()

    def begin(self, n: int) -> bool:
        return self._fence.begin(n)

    def end(self, n: int) -> None:
        self._fence.end(n)

    def fence(self, n: int, *, within_seconds: float) -> list[FencedWorker]:
        self._power.step("fence")
        found = self._fence.fence(n, within_seconds=within_seconds)
        self._power.step("fenced")
        return found

    def is_held(self, n: int) -> bool:
        return self._fence.is_held(n)

    def reserve(self, count: int) -> None:
        self._fence.reserve(count)

    def sweep(self) -> int:
        self._power.alive()
        return self._fence.sweep()


class CuttingEngine(EngineControl):
    """An engine whose caller can die before the call and before it hears the answer."""

    def __init__(self, power: Power, engine: EngineControl) -> None:
        self._power, self._engine = power, engine

    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        self._power.step("evict")
        evicted = self._engine.evict(
            internal_id, loaded_by=loaded_by, within_seconds=within_seconds
        )
        self._power.step("evicted")
        return evicted

    def bases(self, *, within_seconds: float = 1.0) -> set[str]:
        return self._engine.bases(within_seconds=within_seconds)

    def load_base(self, name: str, path: str) -> None:
        self._engine.load_base(name, path)

    def models(self) -> list[str]:
        self._power.alive()
        return self._engine.models()
