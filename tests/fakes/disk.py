"""A disk in memory that can stop between any two of its smallest steps, and two that are broken.

It keeps what real disks keep: the view of a running system, the part of it that is durable, and the
platter, where the bytes of unlinked files stay until something is written over them.
"""

import copy
import io
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO


class Crash(BaseException):
    """The machine stopped. Not an Exception: nothing may catch it and go on."""


class Survival(Enum):
    """What of the steps that nobody synced is there after the crash."""

    ALL_UNSYNCED = "the process died, the system runs on: all is seen, nothing more is durable"
    NONE = "the power went: none of it"
    WRITTEN_BACK = "the power went: all of it, written back just in time"
    TORN = "the power went: the first half of each file's new bytes and of each directory's steps"


@dataclass(eq=False)
class Inode:
    seen: bytes = b""
    durable: bytes = b""


@dataclass(eq=False)
class Directory:
    pass


Change = dict[Path, Inode | Directory | None]


class MemoryDisk:
    """A `Disk`. With `crash_at` = n it raises Crash instead of taking its n-th step, then is dead."""

    def __init__(self) -> None:
        self._platter: list[Inode] = []
        self._seen: Change = {Path("/"): Directory()}
        self._durable: Change = dict(self._seen)
        self._unsynced: defaultdict[Path, list[Change]] = defaultdict(list)
        self._locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self.steps = 0
        self.crash_at: int | None = None
        self.dead = False

    def clone(self) -> "MemoryDisk":
        """Return an equal disk that shares nothing with this one."""
        twin = type(self)()
        state = (self._platter, self._seen, self._durable, self._unsynced)
        twin._platter, twin._seen, twin._durable, twin._unsynced = copy.deepcopy(state)
        twin.dead = self.dead
        return twin

    def restart(self, survival: Survival) -> None:
        """Come back after a crash."""
        self.dead, self.steps, self.crash_at = False, 0, None
        self._locks.clear()
        if survival is Survival.ALL_UNSYNCED:
            return
        for inode in self._platter:
            half = len(inode.seen) // 2
            if survival is Survival.WRITTEN_BACK:
                inode.durable = inode.seen
            elif survival is Survival.TORN:
                inode.durable = inode.seen[:half] + inode.durable[half:]
            inode.seen = inode.durable
        for changes in self._unsynced.values():
            kept = {Survival.NONE: 0, Survival.TORN: (len(changes) + 1) // 2}
            for change in changes[: kept.get(survival, len(changes))]:
                self._apply(self._durable, change)
        self._unsynced.clear()
        self._seen = dict(self._durable)

    def platter(self) -> list[bytes]:
        """Return all bytes that a look at the bare medium may find, of unlinked files too."""
        return [content for i in self._platter for content in {i.seen, i.durable}]

    def open(self, path: Path) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def read(self, path: Path) -> bytes:
        self._alive()
        return self._inode(path).seen

    def names(self, directory: Path) -> list[str]:
        self._alive()
        return [p.name for p, i in self._seen.items() if p.parent == directory and p != directory]

    def size(self, path: Path) -> int:
        return len(self.read(path))

    def make_directory(self, directory: Path) -> None:
        self._alive()
        if directory.parent not in self._seen:
            self.make_directory(directory.parent)
        if directory not in self._seen:
            self._change(directory.parent, {directory: Directory()})
        self.sync_directory(directory.parent)

    def drop_directory(self, directory: Path) -> None:
        self._alive()
        if directory in self._seen and not self.names(directory):
            self._change(directory.parent, {directory: None})

    def write_new(self, path: Path, chunks: Iterable[bytes]) -> int:
        self._alive()
        if path in self._seen:
            raise FileExistsError(path)
        if not isinstance(self._seen.get(path.parent), Directory):
            raise FileNotFoundError(path)
        data = b"".join(chunks)
        inode = Inode()
        self._platter.append(inode)
        self._change(path.parent, {path: inode})
        self._write(inode, data)
        return len(data)

    @contextmanager
    def open_in_place(self, path: Path) -> Iterator["MemoryInPlaceFile"]:
        self._alive()
        yield MemoryInPlaceFile(self, path, self._inode(path))

    def rename(self, source: Path, target: Path) -> None:
        self._alive()
        change: Change = {source: None, target: self._inode(source)}
        self._change(target.parent, change)
        if source.parent != target.parent:
            self._unsynced[source.parent].append(change)

    def unlink(self, path: Path) -> None:
        self._alive()
        if path in self._seen:
            self._change(path.parent, {path: None})

    def sync_directory(self, directory: Path) -> None:
        self._alive()
        if directory not in self._seen:
            raise FileNotFoundError(directory)
        self._step()
        for change in self._unsynced.pop(directory, []):
            self._apply(self._durable, change)

    @contextmanager
    def exclusive(self, path: Path) -> Iterator[None]:
        self._alive()
        with self._locks[path]:
            yield

    def overwrites_in_place(self, path: Path) -> bool:
        return path in self._seen

    def overwrite(self, path: Path, inode: Inode, data: bytes) -> None:
        """Write over the file's first bytes, where they lie."""
        self._alive()
        assert path.name
        self._write(inode, data + inode.seen[len(data) :])

    def replace(self, inode: Inode, data: bytes) -> None:
        """Write over the file where it lies, and end it there."""
        self._alive()
        self._write(inode, data)

    def _write(self, inode: Inode, data: bytes) -> None:
        half = len(data) // 2
        self._step()
        inode.seen = data[:half] + inode.seen[half:]
        self._step()
        inode.seen = data
        self._step()
        inode.durable = data

    def _change(self, directory: Path, change: Change) -> None:
        self._step()
        self._apply(self._seen, change)
        self._unsynced[directory].append(change)

    @staticmethod
    def _apply(names: Change, change: Change) -> None:
        for path, inode in change.items():
            if inode is None:
                names.pop(path, None)
            else:
                names[path] = inode

    def _inode(self, path: Path) -> Inode:
        inode = self._seen.get(path)
        if not isinstance(inode, Inode):
            raise FileNotFoundError(path)
        return inode

    def _step(self) -> None:
        if self.steps == self.crash_at:
            self.dead = True
            raise Crash
        self.steps += 1

    def _alive(self) -> None:
        if self.dead:
            raise Crash


class MemoryInPlaceFile:
    def __init__(self, disk: MemoryDisk, path: Path, inode: Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode

    @property
    def size(self) -> int:
        return len(self._inode.seen)

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        self._disk.overwrite(self._path, self._inode, b"".join(chunks))

    def replace(self, chunks: Iterable[bytes]) -> None:
        self._disk.replace(self._inode, b"".join(chunks))


class RenamingDisk(MemoryDisk):
    """Broken on purpose: replaces files by write-and-rename, as careful programs usually do."""

    def overwrite(self, path: Path, inode: Inode, data: bytes) -> None:
        if path not in self._seen:
            return
        fresh = path.with_name(f"{path.name}.{len(self._platter)}")
        self.write_new(fresh, [data + inode.seen[len(data) :]])
        self.rename(fresh, path)
        self.sync_directory(path.parent)


class ForgetfulDisk(MemoryDisk):
    """Broken on purpose: syncing a directory does nothing."""

    def sync_directory(self, directory: Path) -> None:
        self._alive()
        if directory not in self._seen:
            raise FileNotFoundError(directory)
        if directory.name.isdigit():
            return
        super().sync_directory(directory)
