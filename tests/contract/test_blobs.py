"""What every store of blobs keeps to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.disk import Crash, MemoryDisk, RenamingDisk, Survival

from tunewarden.artifacts.blobs import BlobErased, ErasableBlobs, ErasedBlob
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.artifacts.disk import LocalDisk
from tunewarden.errors import Error, Kind

ROOT = Path("/blobs")
NAME = "m_0a1B2c/adapter_model.safetensors.age"


@pytest.fixture(params=["local", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> ErasableBlobs:
    if request.param == "local":
        return DirectoryBlobs(LocalDisk(), tmp_path / "blobs")
    return DirectoryBlobs(MemoryDisk(), ROOT)


def _read(blobs: ErasableBlobs, name: str) -> bytes:
    with blobs.open(name) as file:
        return file.read()


def test_a_blob_reads_as_it_was_written(blobs: ErasableBlobs) -> None:
    assert blobs.put(NAME, [b"sealed ", b"", b"weights"]) == 14
    assert _read(blobs, NAME) == b"sealed weights"


def test_a_blob_may_be_empty(blobs: ErasableBlobs) -> None:
    assert blobs.put(NAME, []) == 0
    assert _read(blobs, NAME) == b""
    assert blobs.erase(NAME) == ErasedBlob(NAME, bytes=0, versions=1)


def test_names_are_listed_by_their_owner(blobs: ErasableBlobs) -> None:
    for name in ("m_a/two", "m_a/one", "m_ab/three"):
        blobs.put(name, [b"x"])
    assert blobs.names("m_a/") == ["m_a/one", "m_a/two"]
    assert blobs.names("m_b/") == []
    assert blobs.names("") == ["m_a/one", "m_a/two", "m_ab/three"]


def test_an_erased_blob_is_gone_and_its_neighbours_are_not(blobs: ErasableBlobs) -> None:
    blobs.put("m_a/one", [b"12345"])
    blobs.put("m_a/two", [b"x"])
    assert blobs.erase("m_a/one") == ErasedBlob("m_a/one", bytes=5, versions=1)
    with pytest.raises(BlobErased):
        blobs.open("m_a/one")
    assert blobs.names("") == ["m_a/two"]
    assert _read(blobs, "m_a/two") == b"x"


def test_erasing_again_finds_nothing_and_says_so(blobs: ErasableBlobs) -> None:
    blobs.put(NAME, [b"x"])
    blobs.erase(NAME)
    assert blobs.erase(NAME) == ErasedBlob(NAME, bytes=0, versions=0)


def test_a_failed_write_leaves_nothing_behind(blobs: ErasableBlobs) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        blobs.put(NAME, chunks())
    assert blobs.names("") == []
    assert blobs.put(NAME, [b"whole"]) == 5


def test_a_blob_is_written_once(blobs: ErasableBlobs) -> None:
    blobs.put(NAME, [b"first"])
    with pytest.raises(ValueError, match="exists"):
        blobs.put(NAME, [b"second"])
    assert _read(blobs, NAME) == b"first"


@pytest.mark.parametrize(
    "name",
    ["", "x", "/x", "x/", "../x", "x/..", "x/.hidden", ".incoming/x", "a/b/c", "a\\b/c", "a/b\n",
     "a b/c", "a/\x00", "a/" + "b" * 200, "ä/b"],
)  # fmt: skip
def test_a_malformed_name_is_the_callers_mistake(blobs: ErasableBlobs, name: str) -> None:
    for call in (blobs.open, blobs.erase, lambda n: blobs.put(n, [])):
        with pytest.raises(ValueError, match="not a blob name"):
            call(name)


@pytest.mark.parametrize("prefix", ["/", "m_a", "../", "m_a/one", "."])
def test_a_malformed_prefix_is_the_callers_mistake(blobs: ErasableBlobs, prefix: str) -> None:
    with pytest.raises(ValueError, match="not a blob prefix"):
        blobs.names(prefix)


def test_a_failed_write_leaves_no_file_at_all(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(LocalDisk(), tmp_path)
    blobs.put(NAME, [b"first"])
    with pytest.raises(ValueError, match="exists"):
        blobs.put(NAME, [b"second"])
    assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()] == [
        ".lock",
        Path(NAME).name,
    ]


def test_an_erased_blob_leaves_no_directory_behind(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(LocalDisk(), tmp_path)
    blobs.put(NAME, [b"x"])
    blobs.erase(NAME)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".incoming", ".lock"]


def test_recovery_unlinks_what_unfinished_writes_left(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(LocalDisk(), tmp_path)
    (tmp_path / ".incoming" / "left").write_bytes(b"half")
    blobs.put(NAME, [b"whole"])
    blobs.recover()
    assert list((tmp_path / ".incoming").iterdir()) == []
    assert _read(blobs, NAME) == b"whole"


def test_storage_that_fails_is_an_error_without_a_path(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(LocalDisk(), tmp_path)
    (tmp_path / "m_a").write_bytes(b"a file where a directory belongs")
    with pytest.raises(Error) as caught:
        blobs.open("m_a/one")
    assert caught.value.kind is Kind.UNAVAILABLE
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize("survival", list(Survival))
def test_a_crash_in_put_leaves_the_whole_blob_or_none(survival: Survival) -> None:
    step, ended = 0, False
    while not ended:
        disk = MemoryDisk()
        blobs = DirectoryBlobs(disk, ROOT)
        disk.steps, disk.crash_at = 0, step
        try:
            blobs.put(NAME, [b"sealed weights"])
            ended = True
        except Crash:
            pass
        disk.restart(survival)
        blobs = DirectoryBlobs(disk, ROOT)
        blobs.recover()
        names = blobs.names("")
        assert names in ([NAME], []) if not ended else names == [NAME]
        assert all(_read(blobs, name) == b"sealed weights" for name in names)
        assert disk.names(ROOT / ".incoming") == []
        step += 1
    assert step > 5


@pytest.mark.parametrize("survival", list(Survival))
def test_after_a_crash_in_erase_a_second_call_leaves_no_byte(survival: Survival) -> None:
    step, ended = 0, False
    while not ended:
        disk = MemoryDisk()
        blobs = DirectoryBlobs(disk, ROOT)
        blobs.put(NAME, [b"sealed weights"])
        disk.steps, disk.crash_at = 0, step
        try:
            blobs.erase(NAME)
            ended = True
        except Crash:
            pass
        disk.restart(survival)
        blobs = DirectoryBlobs(disk, ROOT)
        blobs.erase(NAME)
        disk.restart(Survival.NONE)
        assert blobs.names("") == []
        assert not any(b"sealed" in content or b"weights" in content for content in disk.platter())
        step += 1
    assert step > 5


def test_control_an_erasure_by_renaming_leaves_the_bytes_and_is_caught() -> None:
    disk = RenamingDisk()
    blobs = DirectoryBlobs(disk, ROOT)
    blobs.put(NAME, [b"sealed weights"])
    blobs.erase(NAME)
    assert any(b"sealed weights" in content for content in disk.platter())
