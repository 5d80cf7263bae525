"""Sealing: what goes in comes out, or nothing does."""

import hashlib
import io
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pyrage
import pytest
from tests.fakes.disk import MemoryDisk
from tests.support import mounts

from tunewarden.artifacts.blobs import BlobErased
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.artifacts.sealing import seal, unseal, unseal_to_file, unsealed
from tunewarden.errors import Error, Kind

NAME = "m_1/adapter_model.safetensors.age"
IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
CHUNK = 64 * 1024


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(LocalDisk(), tmp_path / "blobs")


@pytest.fixture
def memory() -> Iterator[Path]:
    """Yield a directory on tmpfs."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this machine has no /dev/shm")
    with TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


def _sealed(blobs: DirectoryBlobs) -> bytes:
    with blobs.open(NAME) as file:
        return file.read()


def _replace(blobs: DirectoryBlobs, data: bytes) -> None:
    blobs.erase(NAME)
    blobs.put(NAME, [data])


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 50_000_000])
def test_a_blob_opens_as_it_was_sealed(blobs: DirectoryBlobs, memory: Path, size: int) -> None:
    plain = os.urandom(size)
    sealed_bytes = seal(io.BytesIO(plain), RECIPIENT, blobs, NAME)
    assert sealed_bytes == len(_sealed(blobs)) > size
    assert unseal_to_file(blobs, NAME, IDENTITY, memory / "plain") == size
    assert (memory / "plain").read_bytes() == plain
    assert (memory / "plain").stat().st_mode & 0o077 == 0


def test_a_blob_is_a_plain_age_file(blobs: DirectoryBlobs) -> None:
    seal(io.BytesIO(b"weights"), RECIPIENT, blobs, NAME)
    assert _sealed(blobs).startswith(b"age-encryption.org/v1\n")
    assert pyrage.decrypt(_sealed(blobs), [IDENTITY]) == b"weights"


def test_no_plain_byte_is_in_any_file(blobs: DirectoryBlobs, tmp_path: Path) -> None:
    canary = os.urandom(32)
    seal(io.BytesIO(canary * 10_000), RECIPIENT, blobs, NAME)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(canary in content or canary[8:24] in content for content in files)


def test_sealing_and_unsealing_need_little_memory(blobs: DirectoryBlobs, memory: Path) -> None:
    class Zeros(io.RawIOBase):
        left = 64 * 1024 * 1024

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    tracemalloc.start()
    try:
        source: BinaryIO = Zeros()  # type: ignore[assignment]  # only what `seal` reads
        seal(source, RECIPIENT, blobs, NAME)
        unseal_to_file(blobs, NAME, IDENTITY, memory / "plain")
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: b"",
        lambda sealed: b"not an age file at all",
        lambda sealed: sealed[:100],
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[: -(CHUNK + 16)],
        lambda sealed: sealed + b"x",
        lambda sealed: sealed[:-5] + bytes([sealed[-5] ^ 1]) + sealed[-4:],
        lambda sealed: sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:],
        lambda sealed: sealed[:100_000] + bytes([sealed[100_000] ^ 128]) + sealed[100_001:],
        lambda sealed: pyrage.encrypt(b"x", [pyrage.x25519.Identity.generate().to_public()]),
    ],
    ids=["empty", "foreign", "header only", "a byte short", "a chunk short", "a byte more",
         "flipped at the end", "flipped in the header", "flipped in the middle", "another key"],
)  # fmt: skip
def test_a_damaged_blob_is_an_error_and_leaves_nothing_plain(
    blobs: DirectoryBlobs, memory: Path, damage: Callable[[bytes], bytes]
) -> None:
    seal(io.BytesIO(os.urandom(4 * CHUNK)), RECIPIENT, blobs, NAME)
    _replace(blobs, damage(_sealed(blobs)))
    with pytest.raises(Error) as caught:
        unseal_to_file(blobs, NAME, IDENTITY, memory / "plain")
    assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "stored_bytes_damaged")
    assert list(memory.iterdir()) == []
    writer = io.BytesIO(b"before")
    writer.seek(0, io.SEEK_END)
    with pytest.raises(Error):
        unseal(blobs, NAME, IDENTITY, writer)
    assert writer.getvalue() == b"before"


def test_a_blob_that_is_not_there_leaves_no_file(blobs: DirectoryBlobs, memory: Path) -> None:
    with pytest.raises(BlobErased):
        unseal_to_file(blobs, NAME, IDENTITY, memory / "plain")
    assert list(memory.iterdir()) == []


def test_an_existing_file_is_not_written_over(blobs: DirectoryBlobs, memory: Path) -> None:
    seal(io.BytesIO(b"weights"), RECIPIENT, blobs, NAME)
    (memory / "plain").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        unseal_to_file(blobs, NAME, IDENTITY, memory / "plain")
    assert (memory / "plain").read_bytes() == b"mine"


def test_plain_bytes_go_to_memory_only(blobs: DirectoryBlobs) -> None:
    seal(io.BytesIO(b"weights"), RECIPIENT, blobs, NAME)
    on_disk = Path(__file__).parent
    with pytest.raises(ValueError, match="tmpfs only"):
        unseal_to_file(blobs, NAME, IDENTITY, on_disk / "plain")
    assert not (on_disk / "plain").exists()


def test_a_reader_that_breaks_leaves_no_blob_and_its_own_exception(blobs: DirectoryBlobs) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise Error(Kind.TOO_LARGE, "the upload is too large")

    with pytest.raises(Error, match="the upload is too large"):
        seal(Breaks(), RECIPIENT, blobs, NAME)
    assert blobs.names("") == []


def test_a_reader_that_answers_nonsense_leaves_no_blob(blobs: DirectoryBlobs) -> None:
    class Nonsense(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return "text"  # type: ignore[return-value]  # wrong on purpose

    with pytest.raises(pyrage.EncryptError):
        seal(Nonsense(), RECIPIENT, blobs, NAME)
    assert blobs.names("") == []


def test_a_store_that_breaks_ends_the_sealing_thread() -> None:
    class Full(MemoryDisk):
        def write_new(self, path: Path, chunks: object) -> int:
            assert isinstance(chunks, Iterator)
            next(chunks)
            raise Error(Kind.UNAVAILABLE, "the disk is full")

    before = threading.active_count()
    with pytest.raises(Error, match="the disk is full"):
        seal(io.BytesIO(bytes(10_000_000)), RECIPIENT, DirectoryBlobs(Full(), Path("/blobs")), NAME)
    assert threading.active_count() == before


def test_a_blob_is_yielded_in_order_and_in_little_memory(blobs: DirectoryBlobs) -> None:
    plain = os.urandom(20_000_000)
    seal(io.BytesIO(plain), RECIPIENT, blobs, NAME)
    digest = hashlib.sha256()
    tracemalloc.start()
    try:
        for chunk in unsealed(blobs, NAME, IDENTITY):
            digest.update(chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(plain).digest()


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 1])
def test_what_is_yielded_is_what_was_sealed(blobs: DirectoryBlobs, size: int) -> None:
    plain = os.urandom(size)
    digest = hashlib.sha256()
    seal(io.BytesIO(plain), RECIPIENT, blobs, NAME, digest=digest)
    assert b"".join(unsealed(blobs, NAME, IDENTITY)) == plain
    assert digest.digest() == hashlib.sha256(_sealed(blobs)).digest()


def test_a_blob_that_is_damaged_at_its_end_never_ends_well(blobs: DirectoryBlobs) -> None:
    plain = os.urandom(10 * CHUNK)
    seal(io.BytesIO(plain), RECIPIENT, blobs, NAME)
    _replace(blobs, _sealed(blobs)[:-1])
    found = bytearray()

    def read() -> None:
        for chunk in unsealed(blobs, NAME, IDENTITY):
            found.extend(chunk)

    with pytest.raises(Error) as caught:
        read()
    assert caught.value.code == "stored_bytes_damaged"
    assert plain.startswith(bytes(found))
    assert found, "control: something came before"


def test_unsealing_may_end_early_and_leaves_no_thread(blobs: DirectoryBlobs) -> None:
    seal(io.BytesIO(os.urandom(5_000_000)), RECIPIENT, blobs, NAME)
    before = threading.active_count(), _open_files()
    chunks = unsealed(blobs, NAME, IDENTITY)
    assert next(chunks)
    assert threading.active_count() == before[0] + 1, "control: a thread was running"
    chunks.close()
    assert (threading.active_count(), _open_files()) == before
    with pytest.raises(BlobErased):
        next(unsealed(blobs, "m_1/nothing.age", IDENTITY))


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_scratch_directory_without_room_is_named(blobs: DirectoryBlobs, tmp_path: Path) -> None:
    """Containers have a /dev/shm of 64 MiB, unless they are given more."""
    size = (mounts.TMPFS_MIB + 1) * 1024 * 1024
    seal(io.BytesIO(bytes(size)), RECIPIENT, blobs, NAME)
    with mounts.small_disk(tmp_path / "scratch", "tmpfs") as scratch:
        with pytest.raises(Error, match="scratch directory is full") as refused:
            unseal_to_file(blobs, NAME, IDENTITY, scratch / "plain")
        assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "scratch_full")
        assert list(scratch.iterdir()) == []
