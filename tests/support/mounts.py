"""File systems of a size of one's own, for tests of what a full disk does."""

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PIECE_BYTES = 64 * 1024
TMPFS_MIB = 64


# How to make each kind in a file, without what it keeps for root alone; XFS has a least size.
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
IMAGE_MIB = {"ext4": 64, "xfs": 320}


@contextmanager
def small_disk(directory: Path, kind: str) -> Iterator[Path]:
    """Mount a small file system of this kind at a directory; skip the test where that is not possible.

    `tmpfs`, or one on a loop device in a file beside the directory.
    """
    directory.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m,mode=700", "tmpfs"]
    if kind != "tmpfs":
        command = ["mount", "-o", "loop", _image(directory.with_suffix(f".{kind}"), kind)]
    mounted = subprocess.run(
        [*command, str(directory)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"{kind} cannot be mounted here: {mounted.stderr.strip()}")
    directory.chmod(0o700)
    for entry in directory.iterdir():  # ext4 makes `lost+found`
        entry.rmdir()
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def fresh_ext4(directory: Path, mebibytes: int) -> Iterator[tuple[Path, Path]]:
    """Mount a fresh ext4 of this size below a directory; yield where, and the image file below it."""
    image, mount = directory / "image", directory / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes * 1024 * 1024)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
        subprocess.run(
            ["mount", "-o", "loop,nodiscard", image, mount], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a loop mount needs root, mkfs.ext4 and a loop device: {error}")
    try:
        yield mount, image
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True, capture_output=True)


def _image(path: Path, kind: str) -> str:
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"{MAKE[kind][0]} is not installed")
    with path.open("wb") as image:
        image.truncate(IMAGE_MIB[kind] * 1024 * 1024)
    subprocess.run([*MAKE[kind], str(path)], check=True)
    return str(path)


def free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def is_full(directory: Path) -> bool:
    """Whether not one block can be written: XFS counts as free what it keeps for itself."""
    path = directory / "one-block"
    try:
        with path.open("wb", buffering=0) as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        path.unlink(missing_ok=True)
    return False


class Filler:
    """Another user of the disk, who leaves nothing free and seizes at once what others give back."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "filler-of-another-tenant"
        self._stop = threading.Event()
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        self.seized = 0
        self._fill()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        for size in (PIECE_BYTES, 4096):
            with suppress(OSError):
                while True:
                    self.seized += os.write(self._file, b"x" * size)

    def _go_on(self) -> None:
        while not self._stop.wait(0.0001):
            self._fill()

    def end(self, *, keep: bool = False) -> None:
        """Stop; give everything back unless it is kept."""
        self._stop.set()
        self._thread.join()
        if not keep:
            self._path.unlink()
        os.close(self._file)


@contextmanager
def filled(directory: Path) -> Iterator[Filler]:
    """Have the disk full, to the last byte, for a block."""
    filler = Filler(directory)
    try:
        yield filler
    finally:
        filler.end()
