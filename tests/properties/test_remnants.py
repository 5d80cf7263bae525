"""What is left of an erased key: in the files, and on the bare ext4 below them."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.lab.thief import identities_within_reach
from tests.support import mounts

from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import Disk, InPlaceFile, LocalDisk
from tunewarden.artifacts.keyring_format import Slot, decode_slot

CAPACITY = 20
BLOCK = 4096
ERASURES = int(os.environ.get("TUNEWARDEN_TEST_ERASURES", "25"))
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class RenamingLocalDisk(LocalDisk):
    """Broken on purpose: replaces files by write-and-rename, as careful programs usually do."""

    @contextmanager
    def open_in_place(self, path: Path) -> Iterator[InPlaceFile]:
        yield _Renaming(self, path)


class _Renaming:
    def __init__(self, disk: LocalDisk, path: Path) -> None:
        self._disk, self._path = disk, path

    @property
    def size(self) -> int:
        return self._path.stat().st_size

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        fresh = self._path.with_name("fresh")
        self._disk.write_new(fresh, chunks)
        self._disk.rename(fresh, self._path)
        self._disk.sync_directory(self._path.parent)

    def replace(self, chunks: Iterable[bytes]) -> None:
        self._path.write_bytes(b"".join(chunks))


def _raw(identity: bytes) -> bytes:
    """Return the 32 bytes that an age identity's text stands for (Bech32, BIP 173)."""
    bits = 0
    for letter in identity.decode().removeprefix("AGE-SECRET-KEY-1")[:-6].lower():
        bits = bits << 5 | BECH32.index(letter)
    return (bits >> 52 * 5 - 256).to_bytes(32)


def _keks(shard: Path) -> list[bytes]:
    slots = [decode_slot((shard / name).read_bytes()) for name in ("kek.a", "kek.b")]
    return [slot.kek for slot in slots if slot is not None and slot != Slot(0)]


def _erase_some(disk: Disk, root: Path) -> tuple[list[bytes], list[bytes]]:
    """Erase half of a keyring's keys, one by one.

    Returns patterns that must be nowhere (erased identities and former KEKs, as text and raw, and
    pieces of the rings they were in) and patterns that must be found (a living KEK).
    """
    keyring = DirectoryKeyring(disk, root, shard_capacity=CAPACITY)
    keys = keyring.create_many(2 * ERASURES)
    gone: list[bytes] = []
    for key in keys[::2]:
        shard = root / key.id[1:7]
        secrets = [str(keyring.open(key.id)).encode(), *_keks(shard)]
        ring = next(shard.glob("ring.*.age")).read_bytes()
        gone += [*secrets, *map(_raw, secrets), ring[-200:-100], ring[-64:]]
        os.sync()
        keyring.erase(key.id)
    return gone, _keks(root / "000000")


def test_the_raw_form_of_an_identity_is_read_rightly() -> None:
    # The test vector of the age specification's Go implementation (agekey of 32 bytes "0x00").
    zeros = b"AGE-SECRET-KEY-1" + b"Q" * 52 + b"XXXXXX"
    assert _raw(zeros) == bytes(32)


def test_no_file_holds_an_erased_key_or_a_former_kek(tmp_path: Path) -> None:
    gone, living = _erase_some(LocalDisk(), tmp_path)
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [pattern for pattern in gone if any(pattern in content for content in contents)]
    assert any(living[0] in content for content in contents)
    assert not identities_within_reach(contents) & set(gone)


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a mounted, fresh ext4 and the image file below it."""
    with mounts.fresh_ext4(tmp_path, 32) as mounted:
        yield mounted


def _found(patterns: list[bytes], mount: Path, image: Path) -> int:
    os.sync()
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True, capture_output=True)
    medium = _written(image)
    return sum(pattern in medium for pattern in patterns)


def _written(image: Path) -> bytes:
    """An image without its blocks of zeros, which are most of it: what spans two others stays in one piece."""
    with image.open("rb") as file:
        return b"".join(
            block for block in iter(lambda: file.read(BLOCK), b"") if block != bytes(BLOCK)
        )


def test_no_byte_of_an_erased_key_is_left_on_the_medium(medium: tuple[Path, Path]) -> None:
    gone, living = _erase_some(LocalDisk(), medium[0] / "keyring")
    assert _found(living, *medium) == len(living) == 1
    assert _found(gone, *medium) == 0


def test_control_the_usual_rename_leaves_keys_on_the_medium(medium: tuple[Path, Path]) -> None:
    gone, _ = _erase_some(RenamingLocalDisk(), medium[0] / "keyring")
    assert _found(gone, *medium) > 0


def test_no_byte_of_an_erased_blob_is_left_on_the_medium(medium: tuple[Path, Path]) -> None:
    mount, image = medium
    blobs = DirectoryBlobs(LocalDisk(), mount / "blobs")
    pages = [os.urandom(4096) for _ in range(3 * 256)]
    blobs.put("m_a/weights", pages)
    blobs.put("m_b/weights", [pages[0][::-1]])
    os.sync()
    blobs.erase("m_a/weights")
    assert _found([page[100:164] for page in pages], mount, image) == 0
    assert _found([pages[0][::-1]], mount, image) == 1


def test_control_an_unlinked_blob_is_left_on_the_medium(medium: tuple[Path, Path]) -> None:
    mount, image = medium
    blobs = DirectoryBlobs(LocalDisk(), mount / "blobs")
    page = os.urandom(4096)
    blobs.put("m_a/weights", [page])
    os.sync()
    (mount / "blobs" / "m_a" / "weights").unlink()
    assert _found([page], mount, image) == 1
