"""Power cuts at every disk operation of an append: one leaf, one root for each size (I4, I11)."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, product
from pathlib import Path

import pytest
from tests.fakes.log_disk import FakeLogDisk, PowerCut, Torn

from tunewarden.errors import Error
from tunewarden.transparency.directory_log import Appended, DirectoryLog
from tunewarden.transparency.disk import Piece
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.view import LogView
from tunewarden_receipts import merkle
from tunewarden_receipts.note import Checkpoint, open_checkpoint

DIRECTORY = Path("/log")
SIGNER = LogSigner("log.example/crashes", bytes(range(32)))
SIZES = [0, 1, 2, 254, 255, 256, 257, 511, 65_534, 65_535, 65_536, 65_537]
OURS, OTHER = b"the deletion whose append is cut", b"a deletion that comes between"


class SignsBeforeTheEntriesAreDurable(DirectoryLog):
    """Mutant: the checkpoint goes first."""

    def _write(self, pieces: list[Piece]) -> None:
        self._late = pieces

    def _sign_and_publish(self, checkpoint: Checkpoint) -> bytes:
        note = super()._sign_and_publish(checkpoint)
        super()._write(self._late)
        return note


class IsNotIdempotent(DirectoryLog):
    """Mutant: does not look for the entry."""

    def append_all(self, entries: object, *, since: int) -> list[Appended]:
        assert isinstance(entries, list)
        return super().append_all(entries, since=self.recover())


class ForgetsWhatWasSigned(DirectoryLog):
    """Mutant: takes the checkpoint for the whole truth, though a later one was signed."""

    def _recovered(self) -> tuple[LogView, bytes]:
        view = self._view()
        view.verify_edge()
        return view, self.checkpoint()


class PublishesInPlace(DirectoryLog):
    """Mutant: overwrites the checkpoint instead of renaming a durable file over it."""

    def _sign_and_publish(self, checkpoint: Checkpoint) -> bytes:
        note = self._signer.sign_checkpoint(checkpoint.size, checkpoint.root)
        self._disk.extend_synced([Piece(DIRECTORY / "checkpoint", 0, note)])
        return note


@cache
def disk_of(size: int) -> FakeLogDisk:
    """Return a disk with a log of `size` entries; the last few were appended one by one."""
    disk = FakeLogDisk()
    log = DirectoryLog.create(DIRECTORY, SIGNER, disk=disk)
    singles = min(size, 3)
    log.append_all([b"%d" % number for number in range(size - singles)], since=0)
    for number in range(size - singles, size):
        log.append(b"%d" % number, since=number)
    return disk


def signed_on(disk: FakeLogDisk) -> Iterator[Checkpoint]:
    """Yield every checkpoint whose signature stands on the disk, wherever."""
    for data in disk.files.values():
        if not data.startswith(SIGNER.name.encode()):
            continue
        try:
            yield open_checkpoint(data, SIGNER.key)
        except ValueError:
            continue


def assert_covered(disk: FakeLogDisk, signed: Checkpoint, since: int) -> None:
    """A signed checkpoint must already be served by what is on the disk."""
    view = LogView(disk, DIRECTORY, signed)
    view.verify_edge()
    assert len(list(view.entries(since))) == signed.size - since


def check_one_leaf(disk: FakeLogDisk, size: int, since: int, seen: list[Checkpoint]) -> None:
    log = DirectoryLog(DIRECTORY, SIGNER, disk=disk)
    tail = [entry for _, entry in log.entries(since)]
    assert tail.count(OURS) == 1
    assert len(tail) == size - since == len(set(tail))
    assert log.size() == size
    for old in [*seen, *signed_on(disk)]:
        new = open_checkpoint(log.checkpoint(), SIGNER.key)
        proof = log.consistency_proof(old.size, new.size)
        assert merkle.verify_consistency(old.size, new.size, old.root, new.root, proof)


def cut_and_retry(
    kind: type[DirectoryLog],
    size: int,
    cuts: list[tuple[int, Torn]],
    *,
    other_first: bool = False,
) -> bool:
    """Append with a power cut at each of `cuts` in turn, then without. Return whether all hit."""
    disk = disk_of(size).copy()
    seen: list[Checkpoint] = []
    for cut_at, torn in cuts:
        disk.cut_at, disk.torn = cut_at, torn
        try:
            kind(DIRECTORY, SIGNER, disk=disk).append(OURS, since=size)
        except PowerCut:
            disk.power_on()
        else:
            return False
        for signed in signed_on(disk):
            assert_covered(disk, signed, min(size, signed.size))
            seen.append(signed)
    log = kind(DIRECTORY, SIGNER, disk=disk)
    if other_first:
        log.append(OTHER, since=size)
    first = log.append(OURS, since=size)
    assert log.append(OURS, since=size) == Appended(first.index, log.size())
    check_one_leaf(disk, size + 1 + other_first, size, seen)
    return True


def cut_points(hit: Callable[[int], bool]) -> int:
    """Call `hit` with 0, 1, … until the cut lies behind the last operation; return how many hit."""
    for cut_at in count():
        if not hit(cut_at):
            return cut_at
    raise AssertionError


def every_cut(kind: type[DirectoryLog], size: int) -> int:
    cases = 0
    for torn, other_first in product(Torn, (False, True)):

        def hit(
            cut_at: int,
            torn: Torn = torn,
            other_first: bool = other_first,
        ) -> bool:
            return cut_and_retry(
                kind,
                size,
                [(cut_at, torn)],
                other_first=other_first,
            )

        points = cut_points(hit)
        assert points >= 3  # at least the bundle with its tiles, the checkpoint and its renaming
        cases += points
    return cases


@pytest.mark.parametrize("size", SIZES)
def test_a_cut_at_any_operation_leaves_one_leaf_and_one_history(size: int) -> None:
    print(f"size {size}: {every_cut(DirectoryLog, size)} cuts")


@pytest.mark.parametrize("size", [0, 255, 256])
@pytest.mark.long
def test_a_cut_of_the_retry_after_a_cut_changes_nothing(size: int) -> None:
    cases = 0
    for first, second in product(Torn, repeat=2):

        def both(cut_at: int, first: Torn = first, second: Torn = second) -> bool:
            nonlocal cases
            cases += cut_points(
                lambda again: cut_and_retry(
                    DirectoryLog, size, [(cut_at, first), (again, second)], other_first=True
                )
            )
            return cut_and_retry(DirectoryLog, size, [(cut_at, first)])

        cut_points(both)
    print(f"size {size}: {cases} pairs of cuts")
    assert cases > 150


def test_a_cut_while_a_log_is_made_leaves_a_log_that_can_be_made() -> None:
    for torn in Torn:

        def hit(cut_at: int, torn: Torn = torn) -> bool:
            disk = FakeLogDisk()
            disk.cut_at, disk.torn = cut_at, torn
            try:
                DirectoryLog.create(DIRECTORY, SIGNER, disk=disk)
            except PowerCut:
                disk.power_on()
            else:
                return False
            log = DirectoryLog.create(DIRECTORY, SIGNER, disk=disk)
            assert log.append(OURS, since=0) == Appended(0, 1)
            check_one_leaf(disk, 1, 0, list(signed_on(disk)))
            return True

        assert cut_points(hit) == 3


def test_recovery_publishes_what_was_signed_before_anything_is_read() -> None:
    disk = disk_of(3).copy()
    # Everything up to and including `checkpoint.next`, so a signature exists and is not published.
    disk.log.clear()
    DirectoryLog(DIRECTORY, SIGNER, disk=disk.copy()).append(OURS, since=3)
    probe = disk.copy()
    DirectoryLog(DIRECTORY, SIGNER, disk=probe).append(OURS, since=3)
    disk.cut_at, disk.torn = probe.log.index("extend checkpoint.next"), Torn.WHOLE
    with pytest.raises(PowerCut):
        DirectoryLog(DIRECTORY, SIGNER, disk=disk).append(OURS, since=3)
    disk.power_on()
    log = DirectoryLog(DIRECTORY, SIGNER, disk=disk)
    assert log.size() == 3
    assert log.recover() == 4
    assert log.recover() == log.size() == 4
    assert log.entry(3) == OURS


@pytest.mark.parametrize("field", ["size", "root", "origin"])
def test_a_begun_checkpoint_that_contradicts_the_log_is_reported(field: str) -> None:
    disk = disk_of(3).copy()
    root = open_checkpoint(disk.files[DIRECTORY / "checkpoint"], SIGNER.key).root
    wrong = {
        "size": SIGNER.sign_checkpoint(2, root),
        "root": SIGNER.sign_checkpoint(3, bytes(32)),
        "origin": LogSigner("log.example/else", bytes(32)).sign_checkpoint(4, root),
    }
    disk.files[DIRECTORY / "checkpoint.next"] = wrong[field]
    with pytest.raises(Error, match="does not continue"):
        DirectoryLog(DIRECTORY, SIGNER, disk=disk).append(OURS, since=3)


@pytest.mark.parametrize(
    "mutant",
    [
        SignsBeforeTheEntriesAreDurable,
        IsNotIdempotent,
        ForgetsWhatWasSigned,
        PublishesInPlace,
    ],
)
def test_the_cuts_catch_a_log_that_does_it_wrong(mutant: type[DirectoryLog]) -> None:
    with pytest.raises((AssertionError, Error)) as caught:
        every_cut(mutant, 256)
    print(f"{mutant.__name__}: {type(caught.value).__name__}")
