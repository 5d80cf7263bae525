"""Commit stamps: the WAL-index header, by which SQLite itself detects commits, read without a system call.

In WAL mode a commit takes effect when its process writes the WAL-index header, which is stored twice at the
beginning of the `-shm` file (sqlite.org/walformat.html, 2.1). Each reader compares these bytes with its
own copy, to decide whether its cached pages are valid; here they decide whether cached rows are. Equal bytes mean the same
content: the header has the WAL's length, a checksum over all of it, its salt, and a counter of
commits. A commit writes the second copy first, so if both are still the old ones, it has not returned yet.
"""

import mmap
import os
import sys
from pathlib import Path

import apsw

HEADER_BYTES = 2 * 48
FORMAT = 3007000
# Mappings stay open until this process ends, because closing any descriptor of a file drops every
# POSIX lock that the process has on it, SQLite's included.
_OPENED: dict[tuple[int, int], tuple[int, mmap.mmap]] = {}


class WalIndex:
    """The WAL-index header of one database. `anchor` is a connection that has read and stays open.

    While it is open, SQLite does not remove the mapped file.
    """

    def __init__(self, anchor: apsw.Connection) -> None:
        """Map it. Raises OSError."""
        self._anchor = anchor
        self._map = _mapped(Path(f"{anchor.filename}-shm"))  # as SQLite names it, links followed

    @property
    def is_known(self) -> bool:
        """Return whether the header has the expected format."""
        return int.from_bytes(self._map[:4], sys.byteorder) == FORMAT

    def stamp(self) -> bytes:
        """Return both copies of the header."""
        return self._map[:HEADER_BYTES]


def _mapped(path: Path) -> mmap.mmap:
    about = (
        path.stat()
    )  # before opening: a file mapped already must not be opened, and closed, again
    which = about.st_dev, about.st_ino
    if which not in _OPENED:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _OPENED[which] = descriptor, mmap.mmap(descriptor, HEADER_BYTES, prot=mmap.PROT_READ)
    return _OPENED[which][1]
