"""What every disk does while the power is on: the machine's, and the one in memory that tests can cut."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.disk import MemoryDisk

from tunewarden.artifacts.disk import Disk, LocalDisk, erase_file


@pytest.fixture(params=["local", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return LocalDisk() if request.param == "local" else MemoryDisk()


@pytest.fixture
def directory(disk: Disk, tmp_path: Path) -> Path:
    found = tmp_path / "a" / "b"
    disk.make_directory(found)
    return found


def test_a_file_reads_as_it_was_written(disk: Disk, directory: Path) -> None:
    file = directory / "f"
    assert disk.write_new(file, [b"ab", b"", b"cde"]) == 5
    assert disk.read(file) == b"abcde"
    assert disk.size(file) == 5
    with disk.open(file) as opened:
        assert opened.read(3) == b"abc"


def test_nothing_is_written_over(disk: Disk, directory: Path) -> None:
    file = directory / "f"
    disk.write_new(file, [b"first"])
    with pytest.raises(FileExistsError):
        disk.write_new(file, [b"second"])
    assert disk.read(file) == b"first"


def test_a_write_that_fails_leaves_no_file(disk: Disk, directory: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        disk.write_new(directory / "f", broken())
    assert disk.names(directory) == []


def test_what_is_not_there_is_not_found(disk: Disk, directory: Path) -> None:
    missing = directory / "no"
    for ask in (disk.read, disk.size, disk.open, disk.sync_directory):
        with pytest.raises(FileNotFoundError):
            ask(missing)
    with pytest.raises(FileNotFoundError), disk.open_in_place(missing):
        pass
    with pytest.raises(FileNotFoundError):
        disk.rename(missing, directory / "f")
    with pytest.raises(FileNotFoundError):
        disk.write_new(missing / "f", [b""])
    assert disk.names(missing) == []
    disk.unlink(missing)
    disk.drop_directory(missing)


def test_directories_are_made_with_their_parents_and_dropped_when_empty(
    disk: Disk, directory: Path
) -> None:
    disk.make_directory(directory)
    disk.write_new(directory / "f", [b"x"])
    disk.drop_directory(directory)
    assert disk.names(directory) == ["f"]
    disk.unlink(directory / "f")
    disk.drop_directory(directory)
    assert disk.names(directory.parent) == []


def test_a_file_moves_and_takes_the_place_of_another(disk: Disk, directory: Path) -> None:
    old, new = directory / "old", directory / "new"
    disk.write_new(old, [b"old"])
    disk.write_new(new, [b"new"])
    disk.rename(new, old)
    disk.sync_directory(directory)
    assert disk.names(directory) == ["old"]
    assert disk.read(old) == b"new"


def test_a_file_is_overwritten_where_it_lies(disk: Disk, directory: Path) -> None:
    file = directory / "f"
    disk.write_new(file, [b"abcdef"])
    with disk.open_in_place(file) as opened:
        assert opened.size == 6
        opened.overwrite([b"X", b"Y"])
        assert disk.read(file) == b"XYcdef"
        opened.replace([b"short"])
    assert disk.read(file) == b"short"


def test_an_erased_file_was_overwritten_and_is_gone(disk: Disk, directory: Path) -> None:
    file = directory / "f"
    disk.write_new(file, [b"secret"])
    with disk.open(file) as held:
        assert erase_file(disk, file) == 6
        if isinstance(disk, LocalDisk):
            assert held.read() != b"secret"
    assert disk.names(directory) == []


def test_a_lock_is_held_by_one_at_a_time(disk: Disk, directory: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(50):
            with disk.exclusive(directory / ".lock"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)
