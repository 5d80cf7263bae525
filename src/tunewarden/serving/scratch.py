"""Where plain weights may be for a moment: a directory of ours in memory (I16).

Each load gets a fresh directory, 0700, that the engine empties as soon as it has read it. What a
crash leaves is erased at the next start.
"""

import hashlib
import os
import shutil
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.ids import token

MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs"})


def prepare(root: Path, data: Path, *, may_be_a_disk: bool) -> Path:
    """Return this data directory's scratch directory, made if missing.

    Raises Error(UNAVAILABLE) if it would lie on a disk and that was not allowed.
    """
    kind = _file_system_of(root)
    if kind not in MEMORY_FILE_SYSTEMS and not may_be_a_disk:
        raise Error(
            Kind.UNAVAILABLE,
            f"The scratch directory {root} is on {kind or 'an unknown file system'}, not in memory, so"
            " plain weights would touch a disk. Set TUNEWARDEN_SCRATCH to a tmpfs, or accept the disk"
            " with TUNEWARDEN_SCRATCH_MAY_BE_A_DISK=true.",
        )
    directory = location(root, data)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        found = directory.lstat()
        if directory.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise Error(
                Kind.UNAVAILABLE,
                f"{directory} exists and is not ours alone. Remove it and start again.",
            ) from None
    return directory


def location(root: Path, data: Path) -> Path:
    """Return where a data directory's scratch directory is, if it has one."""
    name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return root / f"tunewarden-{os.getuid()}-{name}"


def new_directory(scratch: Path, what: str) -> Path:
    """Return a fresh empty directory in the scratch directory, for one model's `internal_id`, say."""
    directory = scratch / f"{what}.{token(24)}"
    directory.mkdir(mode=0o700)
    return directory


def erase(directory: Path) -> None:
    """Remove one load's directory, whatever is left of it. Memory needs no overwriting."""
    shutil.rmtree(directory, ignore_errors=True)


def erase_all_of(scratch: Path, internal_id: str) -> None:
    """Remove what killed workers left of a model that nobody loads any more (D5).

    Raises Error(UNAVAILABLE) if something is still there.
    """
    # One pattern for all models: `glob` would compile each model's own anew.
    for directory in scratch.glob("*"):
        if not directory.name.startswith(f"{internal_id}."):
            continue
        erase(directory)
        if directory.exists():
            raise Error(
                Kind.UNAVAILABLE,
                f"Plain weights in {directory} cannot be removed.",
                retry_after_seconds=1,
            )


def sweep(scratch: Path) -> int:
    """Remove what crashed processes left; nothing may be loading. Return how many there were."""
    left = list(scratch.iterdir())
    for directory in left:
        erase(directory)
    return len(left)


def _file_system_of(path: Path) -> str:
    """Return the type of the file system that holds `path` (proc(5), mountinfo)."""
    try:
        device = path.stat().st_dev
    except FileNotFoundError as error:
        raise Error(Kind.UNAVAILABLE, f"The scratch directory {path} does not exist.") from error
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return ""
