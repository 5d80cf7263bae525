"""Preallocates disk space for the log's next entries (I20, D7)."""

import os
from contextlib import suppress
from pathlib import Path

from tunewarden import space
from tunewarden.locks import exclusive
from tunewarden.transparency.tiles import ENTRIES, TILE_WIDTH, TileName
from tunewarden_receipts.merkle import HASH_BYTES

BUNDLE_BYTES = 1024 * 1024  # more than 256 entries of deletions need
LEVELS = 3


def reserve(directory: Path, size: int, room_bytes: int) -> None:
    """Preallocate the growing bundle and tiles of a log of `size` entries, and the next ones.

    The space lies beyond the ends of existing or new, empty files: bytes beyond the
    checkpoint is not part of the log. Raises OSError.
    """
    _have_next(directory)
    first = size // TILE_WIDTH
    if first:
        _trim(directory / TileName(ENTRIES, first - 1).path())
    for index in range(first, first + 1 + room_bytes // BUNDLE_BYTES):
        _allocate(directory / TileName(ENTRIES, index).path(), BUNDLE_BYTES)
        for level in range(LEVELS):
            _allocate(
                directory / TileName(level, index >> 8 * level).path(), HASH_BYTES * TILE_WIDTH
            )


def _have_next(directory: Path) -> None:
    """Create the file for the next checkpoint; its content has no meaning yet."""
    with exclusive(directory / "lock"):
        following = directory / "checkpoint.next"
        if not following.exists():
            following.write_bytes((directory / "checkpoint").read_bytes())


def _allocate(path: Path, size: int) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    space.allocate(path, size)


def _trim(path: Path) -> None:
    """Release unused preallocated blocks of a full file."""
    with suppress(FileNotFoundError):
        os.truncate(path, path.stat().st_size)
