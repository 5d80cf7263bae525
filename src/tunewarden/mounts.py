"""Which file system holds a path, from the kernel's mount table (proc(5), /proc/self/mountinfo)."""

import os
from pathlib import Path
from typing import NamedTuple

# Their files are memory: nothing of them is written to a disk, swap aside.
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


class FileSystem(NamedTuple):
    """Its type, such as `ext4`, and the options of its superblock. Both are empty if the mount table does not list it."""

    kind: str
    options: frozenset[str]


def file_system_of(path: Path) -> FileSystem:
    """Return the file system that holds `path`. Raises OSError."""
    device = path.stat().st_dev
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        fields, kind = mount.split(), source.split()
        if len(fields) > 2 and fields[2] == wanted and len(kind) == 3:
            return FileSystem(kind[0], frozenset(kind[2].split(",")))
    return FileSystem("", frozenset())
