"""What the log promises, on the file system and on the fake disk alike."""

import base64
import errno
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pymerkle
import pytest
from tests.fakes.log_disk import FakeLogDisk

from tunewarden.errors import Error, Kind
from tunewarden.transparency import tiles
from tunewarden.transparency.directory_log import Appended, DirectoryLog
from tunewarden.transparency.disk import DirectoryLogDisk, LogDisk
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.tiles import TileName
from tunewarden_receipts import merkle
from tunewarden_receipts.note import LogKey, open_checkpoint

SIGNER = LogSigner("log.example/deletions", bytes(range(32)))


@pytest.fixture(params=["directory", "fake"])
def disk(request: pytest.FixtureRequest) -> LogDisk:
    return DirectoryLogDisk() if request.param == "directory" else FakeLogDisk()


@pytest.fixture
def log(disk: LogDisk, tmp_path: Path) -> DirectoryLog:
    return DirectoryLog.create(tmp_path / "log", SIGNER, disk=disk)


def entry(number: int) -> bytes:
    return b"entry %d" % number


def filled(log: DirectoryLog, size: int) -> DirectoryLog:
    log.append_all([entry(number) for number in range(log.size(), size)], since=log.size())
    return log


def test_a_new_log_is_empty_and_signed(log: DirectoryLog) -> None:
    checkpoint = open_checkpoint(log.checkpoint(), SIGNER.key)
    assert (checkpoint.origin, checkpoint.size) == ("log.example/deletions", 0)
    assert checkpoint.root == merkle.root(0, 0, merkle.nodes_of([]))
    assert log.size() == 0
    assert list(log.entries()) == []


def test_creating_a_log_that_exists_opens_it(disk: LogDisk, tmp_path: Path) -> None:
    DirectoryLog.create(tmp_path / "log", SIGNER, disk=disk).append(b"one", since=0)
    assert DirectoryLog.create(tmp_path / "log", SIGNER, disk=disk).size() == 1


def test_an_appended_entry_is_there_and_proven(log: DirectoryLog) -> None:
    for number in range(20):
        assert log.append(entry(number), since=number) == Appended(number, number + 1)
    checkpoint = open_checkpoint(log.checkpoint(), SIGNER.key)
    assert [found for _, found in log.entries()] == [entry(number) for number in range(20)]
    for index in range(20):
        assert log.entry(index) == entry(index)
        proof = log.inclusion_proof(index, 20)
        leaf = merkle.leaf_hash(entry(index))
        assert merkle.verify_inclusion(leaf, index, 20, proof, checkpoint.root)


def test_a_repeated_append_changes_nothing(log: DirectoryLog) -> None:
    filled(log, 5)
    first = log.append(b"again", since=5)
    log.append(b"other", since=6)
    before = log.checkpoint()
    assert first == Appended(5, 6)
    assert log.append(b"again", since=5) == Appended(5, 7)
    assert log.checkpoint() == before


def test_an_equal_entry_before_since_is_another_entry(log: DirectoryLog) -> None:
    log.append(b"same", since=0)
    assert log.append(b"same", since=1) == Appended(1, 2)


def test_several_entries_stand_under_one_signature(log: DirectoryLog) -> None:
    log.append(b"b", since=0)
    assert log.append_all([b"a", b"b", b"a", b"c"], since=0) == [
        Appended(1, 3),
        Appended(0, 3),
        Appended(1, 3),
        Appended(2, 3),
    ]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 513, 65_537])
def test_the_root_is_that_of_rfc_6962_at_every_tile_border(log: DirectoryLog, size: int) -> None:
    filled(log, size)
    known = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(size):
        known.append_entry(entry(number))
    checkpoint = open_checkpoint(log.checkpoint(), SIGNER.key)
    assert checkpoint.root == known.get_root()
    assert log.append(b"next", since=size) == Appended(size, size + 1)
    known.append_entry(b"next")
    assert open_checkpoint(log.checkpoint(), SIGNER.key).root == known.get_root()


def test_all_pairs_of_checkpoints_are_consistent(log: DirectoryLog) -> None:
    checkpoints = [open_checkpoint(log.checkpoint(), SIGNER.key)]
    for size in (1, 2, 3, 100, 255, 256, 257, 600):
        filled(log, size)
        checkpoints.append(open_checkpoint(log.checkpoint(), SIGNER.key))
    for old in checkpoints:
        for new in checkpoints:
            if old.size <= new.size:
                proof = log.consistency_proof(old.size, new.size)
                assert merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)


def test_tiles_are_served_as_c2sp_names_them(log: DirectoryLog) -> None:
    # The example of C2SP tlog-tiles: what a tree of 70,000 consists of.
    filled(log, 70_000)
    widths = {"tile/0/272": 8192, "tile/0/273.p/112": 112 * 32, "tile/1/000": 8192}
    widths |= {"tile/1/001.p/17": 17 * 32, "tile/2/000.p/1": 32}
    assert {path: len(log.tile(path) or b"") for path in widths} == widths
    for absent in ("tile/0/273", "tile/0/273.p/113", "tile/1/001", "tile/2/000", "tile/3/000"):
        assert log.tile(absent) is None
    bundle = log.tile("tile/entries/273.p/112")
    assert bundle is not None
    assert tiles.decode_bundle(bundle, 112) == [entry(n) for n in range(273 * 256, 70_000)]


def test_partial_tiles_of_old_checkpoints_are_still_served(log: DirectoryLog) -> None:
    # C2SP tlog-tiles: "Logs MUST serve partial tiles corresponding to tree sizes for which a
    # checkpoint was produced"; on the disk they are the beginnings of one file.
    served = {}
    for size in range(1, 300):
        log.append(entry(size - 1), since=size - 1)
        index, width = divmod(size, 256)
        for level in ("0", "entries"):
            path = f"tile/{level}/{index:03d}.p/{width}"
            if width:
                served[path] = log.tile(path)
    assert None not in served.values()
    assert {path: log.tile(path) for path in served} == served


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/../0/000",
        "tile/0/..%2f000",
        "tile/0/\u0660\u0660\u0660",
        "tile/entries/000\n",
        "tile/-1/000",
        "tile/0/999999",
        "../owner.key",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
    ],
)
def test_no_other_path_is_served(log: DirectoryLog, path: str) -> None:
    assert filled(log, 300).tile(path) is None


@pytest.mark.parametrize(
    ("index", "path"),
    [
        (0, "tile/0/000"),
        (999, "tile/0/999"),
        (1000, "tile/0/x001/000"),
        (1_234_067, "tile/0/x001/x234/067"),
    ],
)
def test_tile_names_round_trip(index: int, path: str) -> None:
    assert TileName(0, index).path() == path
    assert TileName.parse(path) == TileName(0, index)
    assert TileName.parse(path + ".p/7") == TileName(0, index, 7)


def test_a_tile_is_one_file_that_grows_until_it_is_full(tmp_path: Path) -> None:
    log = DirectoryLog.create(tmp_path / "log", SIGNER)
    for number in range(600):
        log.append(entry(number), since=number)
    files = {str(p.relative_to(tmp_path / "log")) for p in tmp_path.rglob("*") if p.is_file()}
    hashes = {"tile/0/000", "tile/0/001", "tile/0/002", "tile/1/000"}
    bundles = {"tile/entries/000", "tile/entries/001", "tile/entries/002"}
    assert files == hashes | bundles | {"checkpoint", "checkpoint.next", "lock"}
    for path in hashes | bundles:
        name = TileName.parse(path)
        assert name is not None
        partial = replace(name, width=tiles.width_at(name.level, name.index, 600))
        assert (tmp_path / "log" / path).read_bytes() == log.tile(partial.path())


def test_what_a_crash_left_behind_the_checkpoint_is_not_part_of_the_log(tmp_path: Path) -> None:
    log = filled(DirectoryLog.create(tmp_path / "log", SIGNER), 254)
    hashes, bundle = tmp_path / "log/tile/0/000", tmp_path / "log/tile/entries/000"
    for path in (hashes, bundle):
        path.write_bytes(path.read_bytes() + bytes(5_000))
    assert len(list(log.entries())) == 254
    assert log.tile("tile/0/000") is log.tile("tile/entries/000") is None
    for size in (254, 255, 256):
        assert log.append(entry(size), since=size) == Appended(size, size + 1)
    assert len(hashes.read_bytes()) == 256 * 32
    assert len(tiles.decode_bundle(bundle.read_bytes(), 256)) == 256
    assert [found for _, found in log.entries()] == [entry(number) for number in range(257)]


def test_an_append_returns_what_proves_its_entry(log: DirectoryLog) -> None:
    for number in (0, 1, 254, 255, 256, 257):
        filled(log, number)
        [proven] = log.append_proven([(entry(number), number)])
        assert log.append_proven([(entry(number), number)]) == [proven]
        assert (proven.index, proven.size) == (number, number + 1)
        assert proven.checkpoint == log.checkpoint()
        assert proven.proof == log.inclusion_proof(number, number + 1)


def test_an_entry_has_a_length(log: DirectoryLog) -> None:
    largest = bytes(65_535)
    assert log.append(largest, since=0) == Appended(0, 1)
    assert log.entry(0) == largest
    for refused in (b"", bytes(65_536)):
        with pytest.raises(Error) as caught:
            log.append(refused, since=0)
        assert caught.value.kind is Kind.TOO_LARGE


def test_what_the_log_does_not_have_is_not_found(log: DirectoryLog) -> None:
    filled(log, 3)
    asks: list[Callable[[], object]] = [
        lambda: log.entry(3),
        lambda: log.entry(-1),
        lambda: log.entries(4),
        lambda: log.inclusion_proof(3, 3),
        lambda: log.inclusion_proof(0, 4),
        lambda: log.consistency_proof(2, 4),
        lambda: log.consistency_proof(3, 2),
    ]
    for ask in asks:
        with pytest.raises(Error) as caught:
            ask()
        assert caught.value.kind is Kind.NOT_FOUND


def test_a_log_older_than_the_database_takes_nothing(log: DirectoryLog) -> None:
    with pytest.raises(Error, match="older than the database") as caught:
        log.append(b"new", since=1)
    assert (caught.value.kind, log.size()) == (Kind.UNAVAILABLE, 0)


def _files(directory: Path) -> list[Path]:
    unread = {"lock", "checkpoint.next"}  # the latter is the checkpoint before, after each append
    return [path for path in directory.rglob("*") if path.is_file() and path.name not in unread]


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize("damage", ["flip", "short", "long", "empty", "gone"])
def test_every_damaged_file_is_reported_and_none_is_repaired(tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "log"
    log = filled(DirectoryLog.create(directory, SIGNER), 600)
    reported = 0
    for path in _files(directory):
        good = path.read_bytes()
        changes = {"flip": _flipped(good), "short": good[:-3], "long": good + b"x", "empty": b""}
        path.unlink() if damage == "gone" else path.write_bytes(changes[damage])
        before = {file: file.read_bytes() for file in _files(directory)}
        edge = path.name in {"checkpoint", "002"} or path.parent.name == "1"
        if edge and damage == "long" and path.name != "checkpoint":
            path.write_bytes(good)  # beyond the checkpoint, so it is no damage: see above
            continue
        with pytest.raises(Error) as caught:
            list(log.entries())
        assert caught.value.kind is Kind.UNAVAILABLE
        assert "restore" in caught.value.message
        assert str(tmp_path) not in caught.value.message
        if edge:  # what an append would build upon
            with pytest.raises(Error):
                log.append(b"new", since=600)
            assert {file: file.read_bytes() for file in _files(directory)} == before
        path.write_bytes(good)
        reported += 1
    assert reported == (5 if damage == "long" else 8)
    assert log.append(b"new", since=600) == Appended(600, 601)


def test_a_log_without_its_checkpoint_is_not_begun_anew(log: DirectoryLog, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    with pytest.raises(Error, match="no checkpoint"):
        DirectoryLog(tmp_path / "elsewhere", SIGNER)
    real = filled(DirectoryLog.create(tmp_path / "real", SIGNER), 3)
    (tmp_path / "real/checkpoint").unlink()
    for attempt in (lambda: DirectoryLog(directory.with_name("real"), SIGNER), real.size):
        with pytest.raises(Error, match="no checkpoint"):
            attempt()
    with pytest.raises(Error, match="tiles but no checkpoint"):
        DirectoryLog.create(tmp_path / "real", SIGNER)


def test_a_log_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    filled(DirectoryLog.create(tmp_path / "log", SIGNER), 3)
    for other in (
        LogSigner(SIGNER.name, bytes(32)),
        LogSigner("log.example/other", bytes(range(32))),
    ):
        with pytest.raises(Error, match="does not verify"):
            DirectoryLog(tmp_path / "log", other)


def test_a_full_disk_is_an_error_that_can_be_retried(tmp_path: Path) -> None:
    log = filled(DirectoryLog.create(tmp_path / "log", SIGNER), 3)
    blocker = tmp_path / "log/checkpoint.next"
    blocker.unlink()
    blocker.mkdir()  # an open for writing fails as on a broken volume
    with pytest.raises(Error) as caught:
        log.append(b"new", since=3)
    assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "log_unavailable")
    blocker.rmdir()
    assert log.append(b"new", since=3) == Appended(3, 4)


def test_opening_reads_only_the_right_edge(tmp_path: Path) -> None:
    class Counting(DirectoryLogDisk):
        reads = 0

        def read(self, path: Path) -> bytes:
            Counting.reads += 1
            return super().read(path)

    filled(DirectoryLog.create(tmp_path / "log", SIGNER), 70_000)
    log = DirectoryLog(tmp_path / "log", SIGNER, disk=Counting())
    assert Counting.reads == 4  # the checkpoint and one tile of each of the three levels
    log.append(b"new", since=70_000)
    assert Counting.reads <= 4 + 7


def _append_many(directory: Path, writer: int, count: int) -> None:
    log = DirectoryLog(directory, SIGNER)
    for number in range(count):
        while True:
            try:
                log.append(b"%d/%d" % (writer, number), since=0)
                break
            except Error as error:
                if error.code != "storage_busy":  # on a busy machine its turn may come too late
                    raise


def test_a_checkpoint_that_is_read_while_it_grows_is_read_again(tmp_path: Path) -> None:
    """From 9 to 10 entries it grows by a byte: a reader may get the old bytes and the new end."""

    class Torn(DirectoryLogDisk):
        readings = 0

        def read(self, path: Path) -> bytes:
            found = super().read(path)
            if path.name == "checkpoint" and found.split(b"\n")[1] == b"10":
                self.readings += 1
                return old + b"\n" if self.readings == 1 else found
            return found

    writer = filled(DirectoryLog.create(tmp_path / "log", SIGNER), 9)
    disk = Torn()
    reader = DirectoryLog(tmp_path / "log", SIGNER, disk=disk)
    old = writer.checkpoint()
    writer.append(entry(9), since=9)
    assert len(writer.checkpoint()) == len(old) + 1
    assert reader.size() == 10
    assert disk.readings == 2


def test_a_checkpoint_that_is_not_published_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that a reader opened may become `checkpoint.next`, and hold the one after."""

    class Full(DirectoryLogDisk):
        def rename_synced(self, source: Path, target: Path) -> None:
            raise OSError(errno.EIO, f"{source} stays beside {target}")

    writer = filled(DirectoryLog.create(tmp_path / "log", SIGNER), 2)
    reader = DirectoryLog(tmp_path / "log", SIGNER)
    open_file = Path.open

    def open_slowly(path: Path, mode: str = "r") -> IO[Any]:
        file = open_file(path, mode)
        if path.name == "checkpoint":
            monkeypatch.setattr(Path, "open", open_file)
            writer.append(entry(2), since=2)
            with pytest.raises(Error):
                DirectoryLog(tmp_path / "log", SIGNER, disk=Full()).append(entry(3), since=3)
        return file

    monkeypatch.setattr(Path, "open", open_slowly)
    assert reader.size() == 3
    next_note = (tmp_path / "log" / "checkpoint.next").read_bytes()
    assert open_checkpoint(next_note, SIGNER.key).size == 4


@pytest.mark.long
def test_processes_and_threads_append_beside_readers(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    log = DirectoryLog.create(directory, SIGNER)
    spawn = multiprocessing.get_context("spawn")
    writers: list[threading.Thread | multiprocessing.process.BaseProcess] = [
        threading.Thread(target=_append_many, args=(directory, writer, 90)) for writer in (0, 1)
    ]
    writers += [spawn.Process(target=_append_many, args=(directory, w, 90)) for w in (2, 3)]
    for writer in writers:
        writer.start()
    seen, reads = [open_checkpoint(log.checkpoint(), SIGNER.key)], 0
    while any(writer.is_alive() for writer in writers):
        checkpoint = open_checkpoint(log.checkpoint(), SIGNER.key)
        entries = list(log.entries(max(0, checkpoint.size - 50)))
        assert len(entries) >= min(50, checkpoint.size)
        seen.append(checkpoint)
        reads += len(entries)
    for writer in writers:
        writer.join()
    found = sorted(found for _, found in log.entries())
    assert found == sorted(b"%d/%d" % (w, n) for w in range(4) for n in range(90))
    for old in seen:
        proof = log.consistency_proof(old.size, 360)
        new = open_checkpoint(log.checkpoint(), SIGNER.key)
        assert merkle.verify_consistency(old.size, 360, old.root, new.root, proof)
    assert reads > 0


def test_a_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "log.seed"
    (tmp_path / "log.seed.new").write_bytes(b"torn")  # a crash of an earlier start
    signers: list[LogSigner] = []
    starts = [
        threading.Thread(
            target=lambda: signers.append(LogSigner.create_or_load(path, "log.example"))
        )
        for _ in range(8)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert {signer.vkey() for signer in signers} == {signers[0].vkey()}
    assert len(signers) == 8
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_or_shared_signing_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.seed"
    LogSigner.create_or_load(path, "log.example")
    path.chmod(0o640)
    with pytest.raises(Error, match="mode"):
        LogSigner.create_or_load(path, "log.example")
    path.chmod(0o600)
    for torn in (b"", bytes(31), bytes(33)):
        path.write_bytes(torn)
        with pytest.raises(Error, match="damaged"):
            LogSigner.create_or_load(path, "log.example")
    with pytest.raises(Error, match="neither read nor made"):
        LogSigner.create_or_load(tmp_path / "absent/log.seed", "log.example")


def test_keys_and_notes_have_the_form_of_c2sp() -> None:
    # The example of golang.org/x/mod/sumdb/note.
    vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signed = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    key = LogKey.parse(vkey.encode())
    raw = base64.b64decode(signed)
    assert key.note_id("PeterNeumann") == raw[:4]
    assert key.verifies(raw[4:], text.encode())
    assert key.vkey("PeterNeumann") == vkey


def test_importing_the_log_does_not_load_openssl() -> None:
    code = "import sys, tunewarden.transparency.directory_log; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
