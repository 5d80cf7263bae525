"""The scratch directory: a private tmpfs directory for plaintext weights on their way to the engine (I16).

Each load gets a new directory, mode 0700, which the engine empties after reading. Leftovers of a
crash are erased at the next start.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from tunewarden import mounts
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

# File in the data directory with the scratch directory's name, if the default name was taken by another user.
CHOSEN = "run/scratch"


def prepare(root: Path, data: Path, *, may_be_a_disk: bool) -> Path:
    """Return this data directory's scratch directory, created if missing.

    Raises Error(UNAVAILABLE) if it would be on a disk and that was not accepted.
    """
    kind = _file_system_of(root)
    if kind not in mounts.IN_MEMORY and not may_be_a_disk:
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
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            # Any user can create files in /dev/shm: a squatted name must not prevent the start.
            _choose_name(data)
            directory = location(root, data)
            directory.mkdir(mode=0o700)
        elif found.st_mode & 0o077:
            raise Error(
                Kind.UNAVAILABLE,
                f"{directory} exists and is accessible to other users. Remove it and start again.",
            ) from None
    return directory


def location(root: Path, data: Path) -> Path:
    """Return the path of a data directory's scratch directory."""
    try:
        name = (data / CHOSEN).read_text("ascii")
    except FileNotFoundError:
        name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return root / f"tunewarden-{os.getuid()}-{name}"


def _choose_name(data: Path) -> None:
    """Choose an unpredictable name, shared by all processes of this data directory."""
    new = data / f"{CHOSEN}.new"
    new.write_text(token(24), "ascii")
    new.rename(data / CHOSEN)


def new_directory(scratch: Path, what: str) -> Path:
    """Create an empty directory in the scratch directory, named after `what` (such as an internal id)."""
    directory = scratch / f"{what}.{token(24)}"
    directory.mkdir(mode=0o700)
    return directory


def erase(directory: Path) -> None:
    """Remove one load's directory. tmpfs needs no overwriting."""
    shutil.rmtree(directory, ignore_errors=True)


def erase_all_of(scratch: Path, internal_ids: Collection[str]) -> None:
    """Remove leftovers of killed workers, of models that cannot be loaded any more (D5).

    Raises Error(UNAVAILABLE) if something could not be removed.
    """
    # One pattern for all models: `glob` would compile a new one per model.
    for directory in scratch.glob("*"):
        if not any(directory.name.startswith(f"{one}.") for one in internal_ids):
            continue
        erase(directory)
        if directory.exists():
            raise Error(
                Kind.UNAVAILABLE,
                f"Plain weights in {directory} cannot be removed.",
                retry_after_seconds=1,
            )


def sweep(scratch: Path) -> int:
    """Remove leftovers of crashed processes, while nothing is loading; return their number."""
    left = list(scratch.iterdir())
    for directory in left:
        erase(directory)
    return len(left)


def _file_system_of(path: Path) -> str:
    try:
        return mounts.file_system_of(path).kind
    except FileNotFoundError as error:
        raise Error(Kind.UNAVAILABLE, f"The scratch directory {path} does not exist.") from error
