"""The append-only log of deletions: a Merkle tree in C2SP tiles, one leaf for each deletion (I4).

The signed checkpoint is the truth. An append makes bytes durable in this order:

1. the new entries and hashes, at the end of the files that hold the bundle and the tiles they fill;
2. `checkpoint.next`, the signed checkpoint that covers them;
3. `checkpoint`, by renaming that file.

A partial tile is the beginning of its full one, so each is one file that grows under the full
one's name; whatever stands in it beyond the checkpoint is not part of the log. What is signed for is
never written again, at most a sector that it shares with what follows, with the same bytes: a power
cut leaves a sector old or new, as SQLite and the log's mark rely on too.

A crash before the text of 2 is whole leaves bytes beyond the checkpoint, and the next append writes
over them. From there on a signature may exist, so the next append, or `recover`, finishes this very
tree before anything else: never are two roots signed for one size (I11). Every append first
recomputes the signed root from the tiles on disk, and proves the entry that it will follow, so that
damage where it builds is reported and never signed; readers prove every entry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunewarden.deletion import merkle, tiles
from tunewarden.deletion.log_disk import DirectoryLogDisk, LogDisk, Piece
from tunewarden.deletion.log_key import LogSigner
from tunewarden.deletion.log_view import LogView, damaged, translated
from tunewarden.deletion.note import Checkpoint, open_checkpoint, parse_text
from tunewarden.deletion.tiles import ENTRIES, MAX_ENTRY_BYTES, TILE_WIDTH, TileName
from tunewarden.errors import Error, Kind

# So many files are held open at once while they are written.
_PIECES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands, and the size of the tree whose signed checkpoint covers it."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class Proven:
    """Where an entry stands, and its path in the tree of `size` that the note `checkpoint` signs."""

    index: int
    size: int
    proof: list[bytes]
    checkpoint: bytes


class Log:
    """One log directory. Any number of processes and threads may share it; a lock orders appends.

    Reading takes no lock. Every method may raise `Error` UNAVAILABLE, for a log that is damaged
    or a volume that failed, with a text that says what to do.
    """

    def __init__(self, directory: Path, signer: LogSigner, *, disk: LogDisk | None = None) -> None:
        """Open an existing log: verifies its checkpoint and its right edge, O(log n)."""
        self._directory = directory
        self._signer = signer
        self._disk = disk or DirectoryLogDisk()
        # The note that was verified last: the same bytes need not be verified again.
        self._verified: tuple[bytes, Checkpoint] | None = None
        self._view().verify_edge()

    @classmethod
    def create(cls, directory: Path, signer: LogSigner, *, disk: LogDisk | None = None) -> "Log":
        """Make an empty log, durably, or open the one that is there.

        Only for a first start: where there ever was a log, an empty one would contradict it.
        """
        disk = disk or DirectoryLogDisk()
        with translated():
            disk.make_directory_synced(directory)
            with disk.lock(directory / "lock"):
                names = disk.names(directory)
                if "checkpoint" not in names:
                    if "tile" in names:
                        raise damaged("it has tiles but no checkpoint")
                    empty = signer.sign_checkpoint(0, merkle.root(0, 0, merkle.nodes_of([])))
                    _publish(disk, directory, empty)
        return cls(directory, signer, disk=disk)

    def size(self) -> int:
        """Return how many entries the newest checkpoint covers."""
        return self._read_note()[1].size

    def checkpoint(self) -> bytes:
        """Return the newest signed note, verified. C2SP tlog-checkpoint."""
        return self._read_note()[0]

    def entry(self, index: int) -> bytes:
        """Return one entry, proven under the checkpoint. `Error` NOT_FOUND beyond it."""
        view = self._view()
        _require(0 <= index < view.size, "There is no such entry in the log.")
        return view.entry(index)

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (index, entry) from `start` to the size at the call, each proven; flat memory."""
        view = self._view()
        _require(0 <= start <= view.size, "The log is not that long.")
        return view.entries(start)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the path of entry `index` in the tree of `size`. RFC 6962 §2.1.1."""
        view = self._view()
        _require(0 <= index < size <= view.size, "There is no such entry in a tree of that size.")
        return view.inclusion_proof(index, size)

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the proof that the tree of `second` continues that of `first`. RFC 6962 §2.1.2."""
        view = self._view()
        _require(0 <= first <= second <= view.size, "The log has no such pair of sizes.")
        return view.consistency_proof(first, second)

    def tile(self, path: str) -> bytes | None:
        """Return what C2SP tlog-tiles serves at `tile/…`; None for any other or unpublished path.

        Partial tiles of every size up to the checkpoint's are served. The bytes are checked for
        length only: whoever fetches tiles verifies them against a checkpoint.
        """
        name = TileName.parse(path)
        return self._view().served(name) if name else None

    def append(self, entry: bytes, *, since: int) -> Appended:
        """Make `entry` a durable leaf of the signed tree, once; return where it stands.

        `since` is the log's size that the caller stored before its first attempt. If an identical
        entry stands at or after it, that one is the answer and nothing is written, so an append may
        be repeated after any crash or error. O(log n), and O(size - since) of 32 bytes each.
        `Error` TOO_LARGE above 65,535 bytes. Blocks while another append runs.
        """
        return self.append_all([entry], since=since)[0]

    def append_all(self, entries: Sequence[bytes], *, since: int) -> list[Appended]:
        """As `append` for several entries under one signature: all become durable, or none."""
        view, _, indices = self._append(entries, [since] * len(entries))
        return [Appended(index, view.size) for index in indices]

    def append_proven(self, entries: Sequence[tuple[bytes, int]]) -> list[Proven]:
        """As `append_all`, each (entry, since), and return what proves each, from the bytes at hand."""
        view, note, indices = self._append(
            [entry for entry, _ in entries], [since for _, since in entries]
        )
        return [
            Proven(index, view.size, view.inclusion_proof(index, view.size), note)
            for index in indices
        ]

    def _append(
        self, entries: Sequence[bytes], sinces: Sequence[int]
    ) -> tuple[LogView, bytes, list[int]]:
        """Append what is not there; return the log as it is then, its signed note, and the places."""
        if not all(0 < len(entry) <= MAX_ENTRY_BYTES for entry in entries):
            raise Error(Kind.TOO_LARGE, "An entry of the log has 1 to 65,535 bytes.")
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        wanted = dict(zip(leaves, zip(entries, sinces, strict=True), strict=True))
        with translated(), self._disk.lock(self._directory / "lock"):
            view, note = self._recovered()
            if not all(0 <= since <= view.size for since in sinces):
                raise Error(
                    Kind.UNAVAILABLE,
                    "The deletion log is older than the database: one of them was restored. "
                    "Restore the newest copy of the log's directory, then start again.",
                    code="log_rolled_back",
                )
            found: dict[bytes, int] = {}
            for index, leaf in view.leaf_hashes(min(sinces, default=view.size)):
                if leaf not in wanted or index < wanted[leaf][1]:
                    continue
                if found.setdefault(leaf, index) == index:
                    view.entry(index)  # proves that the bytes are there, and not only their hash
            new = {leaf: entry for leaf, (entry, _) in wanted.items() if leaf not in found}
            if new:
                found.update(zip(new, range(view.size, view.size + len(new)), strict=True))
                view, note = self._grow(view, new)
        return view, note, [found[leaf] for leaf in leaves]

    def recover(self) -> int:
        """Finish an append that a crash left signed but unpublished; return the log's size.

        For the start of a server, before the log is read (D10). Takes the lock.
        """
        with translated(), self._disk.lock(self._directory / "lock"):
            return self._recovered()[0].size

    def _view(self) -> LogView:
        return LogView(self._disk, self._directory, self._read_note()[1])

    def _read_note(self) -> tuple[bytes, Checkpoint]:
        verified = self._verified
        with translated():
            try:
                note = self._disk.read(self._directory / "checkpoint")
                if verified is None or verified[0] != note:
                    verified = self._verified = note, open_checkpoint(note, self._signer.key)
            except FileNotFoundError as error:
                raise damaged("it has no checkpoint") from error
            except ValueError as error:
                raise damaged("its checkpoint does not verify with the log's key") from error
        return verified

    def _recovered(self) -> tuple[LogView, bytes]:
        """Return the verified view to append to, and its note; first finish what a crash left signed."""
        note, checkpoint = self._read_note()
        view = LogView(self._disk, self._directory, checkpoint)
        view.verify_edge()
        try:
            started = self._disk.read(self._directory / "checkpoint.next")
            begun = parse_text("\n".join(started.decode().split("\n")[:3]) + "\n")
        except (FileNotFoundError, ValueError):
            # Absent, or torn before its text was whole: no signature of that tree can exist here.
            return view, note
        if begun == view.checkpoint:
            return view, note
        if begun.origin != self._signer.name or begun.size <= view.size:
            raise damaged("a checkpoint was begun that does not continue the published one")
        grown = LogView(self._disk, self._directory, begun)
        if grown.root_at(view.size) != view.checkpoint.root:
            raise damaged("a checkpoint was begun that contradicts the published one")
        for _ in grown.entries(view.size):
            pass  # proves that every entry that is about to be signed for is readable
        return grown, self._sign_and_publish(begun)

    def _grow(self, view: LogView, new: dict[bytes, bytes]) -> tuple[LogView, bytes]:
        """Make the tree with `new` (leaf hash -> entry) after the view's durable, signed, published."""
        grown, hashes = view.grown_by(list(new))
        pieces = [
            self._piece(level, index, merkle.HASH_BYTES * width, data)
            for (level, index), data in hashes.items()
            for width in [tiles.width_at(level, index, view.size)]
        ]
        self._write([*self._bundles(view, list(new.values())), *pieces])
        return grown, self._sign_and_publish(grown.checkpoint)

    def _bundles(self, view: LogView, entries: list[bytes]) -> Iterator[Piece]:
        index, used = divmod(view.size, TILE_WIDTH)
        at, start = view.end_of_bundle(), 0
        while start < len(entries):
            end = start + TILE_WIDTH - used
            yield self._piece(ENTRIES, index, at, tiles.encode_bundle(entries[start:end]))
            index, used, at, start = index + 1, 0, 0, end

    def _piece(self, level: int, index: int, at: int, data: bytes) -> Piece:
        return Piece(self._directory / TileName(level, index).path(), at, data)

    def _write(self, pieces: list[Piece]) -> None:
        for directory in {piece.path.parent for piece in pieces if not piece.at}:
            self._disk.make_directory_synced(directory)
        for at in range(0, len(pieces), _PIECES_AT_ONCE):
            self._disk.extend_synced(pieces[at : at + _PIECES_AT_ONCE])

    def _sign_and_publish(self, checkpoint: Checkpoint) -> bytes:
        """Sign a tree whose every byte is durable. Ed25519 gives the same note each time."""
        note = self._signer.sign_checkpoint(checkpoint.size, checkpoint.root)
        _publish(self._disk, self._directory, note)
        self._verified = note, checkpoint
        return note


def _publish(disk: LogDisk, directory: Path, note: bytes) -> None:
    # In place: where a crash left this very note, no other crash can lose it while it is finished.
    disk.extend_synced([Piece(directory / "checkpoint.next", 0, note)])
    disk.rename_synced(directory / "checkpoint.next", directory / "checkpoint")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise Error(Kind.NOT_FOUND, message)
