"""A way to the disk for SQLite that records what was written and synced, and what a power cut leaves."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on one file; `data` is None for a truncation to `offset`."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


class RecordingVfs(apsw.VFS):
    """Passes everything on to the system, and keeps `ops`."""

    def __init__(self, name: str) -> None:
        self.ops: list[Op] = []
        self.name = name
        super().__init__(name, "", exclude=set())

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  apsw's name
        return _RecordingFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  apsw's name
        self.ops.append(Op("delete", Path(filename).name))
        super().xDelete(filename, syncdir)


class _RecordingFile(apsw.VFSFile):
    def __init__(self, vfs: RecordingVfs, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name, self._ops = Path(path or "temporary").name, vfs.ops
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802  apsw's name
        self._ops.append(Op("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  apsw's name
        self._ops.append(Op("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802  apsw's name
        self._ops.append(Op("sync", self._name))
        super().xSync(flags)


Files = dict[str, bytearray]


def power_cuts(
    start: Files, ops: list[Op], states: int, seed: int
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Yield (how many operations came before, files) of `states` cuts, spread over the operations.

    What was synced is there. Of the rest each operation is there or not, and a write may be torn
    between two sectors. An unlink that nothing synced since may have happened or not.
    """
    chance = random.Random(seed)
    durable = {name: bytearray(content) for name, content in start.items()}
    pending: dict[str, list[Op]] = {}
    deletes: list[str] = []
    done = 0
    for at in range(len(ops) + 1):
        due = states * (at + 1) // (len(ops) + 1)
        for _ in range(due - done):
            yield at, _one_outcome(durable, pending, deletes, chance)
        done = due
        if at == len(ops):
            return
        op = ops[at]
        if op.kind == "delete":
            deletes.append(op.name)
        elif op.kind == "sync":
            for name in deletes:  # as on ext4: an fsync makes the unlinks before it durable too
                durable.pop(name, None)
                pending.pop(name, None)
            deletes.clear()
            for waiting in pending.pop(op.name, []):
                _apply(durable, waiting)
        else:
            pending.setdefault(op.name, []).append(op)


def _one_outcome(
    durable: Files, pending: dict[str, list[Op]], deletes: list[str], chance: random.Random
) -> dict[str, bytes]:
    files = {name: bytearray(content) for name, content in durable.items()}
    for waiting in pending.values():
        luck = chance.choice((0.0, 0.5, 0.9, 1.0))
        for op in waiting:
            if chance.random() < luck:
                _apply(files, _torn(op, chance))
    for name in deletes:
        if chance.random() < 0.5:
            files.pop(name, None)
    return {name: bytes(content) for name, content in files.items()}


def _torn(op: Op, chance: random.Random) -> Op:
    sectors = len(op.data) // SECTOR_BYTES
    if op.kind != "write" or sectors < 2 or chance.random() > 0.2:
        return op
    kept = SECTOR_BYTES * chance.randrange(1, sectors)
    return Op(op.kind, op.name, op.offset, op.data[:kept])


def _apply(files: Files, op: Op) -> None:
    content = files.setdefault(op.name, bytearray())
    if op.kind == "truncate":
        del content[op.offset :]
        return
    content.extend(bytes(max(0, op.offset - len(content))))
    content[op.offset : op.offset + len(op.data)] = op.data
