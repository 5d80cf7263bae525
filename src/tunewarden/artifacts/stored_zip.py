"""A zip archive of files that are stored as they are, written as a stream whose length is known before.

The central directory comes last, so that no part of an archive that was cut short opens as one. Sizes and CRC-32 are
in the headers before the files, so that the archive can be read as a stream too. APPNOTE 6.3.10; files and archives
beyond 4 GiB have zip64 fields.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from struct import pack

_MARK = 0xFFFFFFFF  # the value is in a zip64 field
_VERSION, _VERSION_64 = 20, 45
_UNIX = 3 << 8
_MODE = 0o100600 << 16
_DATE = 33  # 1980-01-01, the first that the format has


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive. `content` is called once, when the file's turn comes."""

    name: str
    size: int
    crc: int
    content: Callable[[], Iterable[bytes]]


def length(entries: Sequence[Entry]) -> int:
    """Return how long the archive is; neither CRC-32 nor content matter."""
    offsets = _offsets(entries)
    return offsets[-1] + len(_directory(entries, offsets))


def pieces(entries: Sequence[Entry]) -> Generator[bytes, None, None]:
    """Yield the archive. Raises ValueError for a content that does not have the size of its entry."""
    for entry in entries:
        yield _local(entry)
        left = entry.size
        for piece in entry.content():
            left -= len(piece)
            yield piece
        if left:
            raise ValueError(f"{entry.name} does not have the size that its archive says")
    yield _directory(entries, _offsets(entries))


def _offsets(entries: Sequence[Entry]) -> list[int]:
    """Return where each entry begins, and where the directory does."""
    return list(accumulate((len(_local(one)) + one.size for one in entries), initial=0))


def _local(entry: Entry) -> bytes:
    is_large = entry.size >= _MARK
    size = _MARK if is_large else entry.size
    extra = pack("<2H2Q", 1, 16, entry.size, entry.size) if is_large else b""
    name = entry.name.encode("ascii")
    needed = _VERSION_64 if is_large else _VERSION
    fields = (needed, 0, 0, 0, _DATE, entry.crc, size, size, len(name), len(extra))
    return pack("<4s5H3I2H", b"PK\3\4", *fields) + name + extra


def _directory(entries: Sequence[Entry], offsets: Sequence[int]) -> bytes:
    found = b"".join(_central(*one) for one in zip(entries, offsets, strict=False))
    start, count = offsets[-1], len(entries)
    end = b""
    if start >= _MARK:
        zip64_end = (44, _UNIX | _VERSION_64, _VERSION_64, 0, 0, count, count, len(found), start)
        end = pack("<4sQ2H2I4Q", b"PK\6\6", *zip64_end)
        end += pack("<4sIQI", b"PK\6\7", 0, start + len(found), 1)
    last = (0, 0, count, count, len(found), min(start, _MARK), 0)
    return found + end + pack("<4s4H2IH", b"PK\5\6", *last)


def _central(entry: Entry, offset: int) -> bytes:
    large = [entry.size, entry.size] if entry.size >= _MARK else []
    large += [offset] if offset >= _MARK else []
    extra = pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    size, name = min(entry.size, _MARK), entry.name.encode("ascii")
    needed = _VERSION_64 if large else _VERSION
    fields = (_UNIX | needed, needed, 0, 0, 0, _DATE, entry.crc, size, size)
    more = (len(name), len(extra), 0, 0, 0, _MODE, min(offset, _MARK))
    return pack("<4s6H3I5H2I", b"PK\1\2", *fields, *more) + name + extra
