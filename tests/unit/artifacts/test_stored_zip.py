"""Zip archives as they are streamed: what tools make of them, whole, cut short, and beyond 4 GiB."""

import io
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Self
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.artifacts import stored_zip
from tunewarden.artifacts.stored_zip import Entry

GIB = 1024**3


def _entry(name: str, content: bytes) -> Entry:
    return Entry(name, len(content), crc32(content), lambda: [content[:7], content[7:]])


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_an_archive_holds_what_was_stored_and_is_as_long_as_was_said(contents: list[bytes]) -> None:
    entries = [_entry(f"file-{n}.bin", content) for n, content in enumerate(contents)]
    archive = b"".join(stored_zip.pieces(entries))
    assert len(archive) == stored_zip.length(entries)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert [opened.read(one) for one in opened.namelist()] == contents


def test_no_part_of_an_archive_opens_as_one() -> None:
    entries = [_entry("a", b"first"), _entry("b", b"second")]
    archive = b"".join(stored_zip.pieces(entries))
    assert zipfile.is_zipfile(io.BytesIO(archive))
    for end in range(len(archive)):
        assert not zipfile.is_zipfile(io.BytesIO(archive[:end])), end


def test_a_content_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        list(stored_zip.pieces([Entry("a", 3, 0, lambda: [b"ab"])]))


@pytest.mark.parametrize("sizes", [(5 * GIB, 3), (3, 5 * GIB), (4 * GIB - 2, 4 * GIB - 1)])
def test_files_and_archives_beyond_4_gib_have_their_sizes(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    """Large files are holes; their CRC-32 is not looked at."""

    entries = [
        Entry(f"{n}", size, crc32(bytes(size)) if size < GIB else 0, partial(_holes, size))
        for n, size in enumerate(sizes)
    ]
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        for piece in stored_zip.pieces(entries):
            if isinstance(piece, _Hole):
                file.seek(len(piece), io.SEEK_CUR)
            else:
                file.write(piece)
    assert path.stat().st_size == stored_zip.length(entries)
    with zipfile.ZipFile(path) as opened:
        assert [one.file_size for one in opened.infolist()] == list(sizes)
        with opened.open("1") as last:
            assert last.read(3) == bytes(3)


def _holes(size: int) -> Iterable[bytes]:
    yield _Hole(size)


class _Hole(bytes):
    """Stands for so many zeros."""

    size: int

    def __new__(cls, size: int) -> Self:
        made = super().__new__(cls)
        made.size = size
        return made

    def __len__(self) -> int:
        return self.size
