"""The log as a directory of C2SP tiles: a leaf for each deletion (I4) and each digest of the audit log.

The signed checkpoint is authoritative. An append makes bytes durable in this order:

1. the new entries and hashes, at the end of the files of their bundle and tiles;
2. `checkpoint.next`, the signed checkpoint that covers them;
3. `checkpoint`, by exchanging the names of these two files: `checkpoint.next` is then the previous one,
   whose blocks the next one reuses. # I20

A partial tile is a prefix of its full one, so each tile is one growing file under the full
one's name; bytes in it beyond the checkpoint are not part of the log. Signed bytes are
never rewritten, except in a sector shared with new bytes, with the same content: a power
cut leaves a sector old or new, an assumption shared with SQLite and the log's mark.

A crash before the text of 2 is complete leaves bytes beyond the checkpoint, which the next append
overwrites. From then on a signature may exist, so the next append, or `recover`, completes exactly this
tree first: two roots are never signed for one size (I11). Every append first
recomputes the signed root from the tiles on disk and verifies the last entry, so that
damage there is reported and never signed; readers verify every entry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.transparency import tiles
from tunewarden.transparency.disk import DirectoryLogDisk, LogDisk, Piece
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Proven
from tunewarden.transparency.tiles import ENTRIES, MAX_ENTRY_BYTES, TILE_WIDTH, TileName
from tunewarden.transparency.view import LogView, damaged, translated
from tunewarden_receipts import merkle
from tunewarden_receipts.note import Checkpoint, open_checkpoint, parse_text
from tunewarden_receipts.receipt import statement_of

# The most files held open at once by an append.
_PIECES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry's index, and the size of the tree whose signed checkpoint covers it."""

    index: int
    size: int


class DirectoryLog:
    """One log directory. Any number of processes and threads may share it; a lock serializes appends.

    Reading takes no lock. Every method may raise Error(UNAVAILABLE), for a damaged log
    or a failed volume; the message says what to do.
    """

    def __init__(self, directory: Path, signer: LogSigner, *, disk: LogDisk | None = None) -> None:
        """Open an existing log: verifies its checkpoint and its right edge, O(log n)."""
        self._directory = directory
        self._signer = signer
        self._disk = disk or DirectoryLogDisk()
        # Cache of the last verified note.
        self._verified: tuple[bytes, Checkpoint] | None = None
        self._view().verify_edge()

    @classmethod
    def create(
        cls, directory: Path, signer: LogSigner, *, disk: LogDisk | None = None
    ) -> "DirectoryLog":
        """Create an empty log durably, or open the existing one.

        Only for a first start: an empty log would contradict an earlier one.
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

    def checkpoint_over(self, index: int) -> bytes:
        """Return the newest checkpoint by the key that signed an entry: the newest one, or its key's last."""
        ended = self._signer.chain.after_entry(index)
        return self.checkpoint() if ended is None else ended.checkpoint

    def entry(self, index: int) -> bytes:
        """Return one entry, verified against the checkpoint. Error(NOT_FOUND) beyond it."""
        view = self._view()
        _require(0 <= index < view.size, "There is no such entry in the log.")
        return view.entry(index)

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (index, entry) from `start` to the size at the call, each verified; constant memory."""
        view = self._view()
        _require(0 <= start <= view.size, "The log is not that long.")
        return view.entries(start)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of entry `index` in the tree of `size`. RFC 6962 §2.1.1."""
        view = self._view()
        _require(0 <= index < size <= view.size, "There is no such entry in a tree of that size.")
        return view.inclusion_proof(index, size)

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the consistency proof between the trees of `first` and `second`. RFC 6962 §2.1.2."""
        view = self._view()
        _require(0 <= first <= second <= view.size, "The log has no such pair of sizes.")
        return view.consistency_proof(first, second)

    def tile(self, path: str) -> bytes | None:
        """Return the tile at a C2SP tlog-tiles path `tile/…`; None for an invalid or unpublished path.

        Serves partial tiles of every size up to the checkpoint's. Checks the bytes'
        length only: clients verify tiles against a checkpoint.
        """
        name = TileName.parse(path)
        return self._view().served(name) if name else None

    def append(self, entry: bytes, *, since: int) -> Appended:
        """Append `entry` as a durable leaf of the signed tree, once; return its place.

        `since` is the log's size that the caller stored before its first attempt. An identical
        entry at or after it is returned and nothing is written, so an append is
        idempotent after any crash or error. O(log n), plus O(size - since) reads of 32 bytes.
        Error(TOO_LARGE) above 65,535 bytes. Blocks while another append runs.
        """
        return self.append_all([entry], since=since)[0]

    def append_all(self, entries: Sequence[bytes], *, since: int) -> list[Appended]:
        """Like `append`, for several entries under one signature: all become durable, or none."""
        view, _, indices = self._append(entries, [since] * len(entries))
        return [Appended(index, view.size) for index in indices]

    def append_proven(self, entries: Sequence[tuple[bytes, int]]) -> list[Proven]:
        """Like `append_all`, for (entry, since) pairs; return each one's inclusion proof, without reading again."""
        wanted = [entry for entry, _ in entries]
        view, note, indices = self._append(wanted, [since for _, since in entries])
        return [
            self._proven_before(view, index)
            if index <= self._signer.chain.last_index
            else Proven(entry, index, view.size, view.inclusion_proof(index, view.size), note)
            for entry, index in zip(wanted, indices, strict=True)
        ]

    def hand_over(self, entry: bytes, successor: LogSigner) -> bytes:
        """Append `entry`, unless it is the last one; publish the checkpoint signed by both keys, and return it.

        From then on only the successor may append. Idempotent until it has.
        """
        with translated(), self._disk.lock(self._directory / "lock"):
            view, _ = self._recovered()
            if not view.size or view.entry(view.size - 1) != entry:
                view, _ = self._grow(view, {merkle.leaf_hash(entry): entry})
            return self._publish_signed(
                view.checkpoint,
                successor.sign_hand_over(view.size, view.checkpoint.root, self._signer),
            )

    def _append(
        self, entries: Sequence[bytes], sinces: Sequence[int]
    ) -> tuple[LogView, bytes, list[int]]:
        """Append the missing entries; return the new view, its signed note, and the places."""
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
                    view.entry(index)  # verifies that the bytes exist, not only their hash
            missing = {leaf: of for leaf, of in wanted.items() if leaf not in found}
            found.update(self._signed_before(view, missing))
            new = {leaf: entry for leaf, (entry, _) in wanted.items() if leaf not in found}
            if new:
                found.update(zip(new, range(view.size, view.size + len(new)), strict=True))
                view, note = self._grow(view, new)
        return view, note, [found[leaf] for leaf in leaves]

    def _signed_before(
        self, view: LogView, wanted: dict[bytes, tuple[bytes, int]]
    ) -> dict[bytes, int]:
        """Find entries (leaf hash -> entry, since) that a former key signed; return the places of those."""
        last = self._signer.chain.last_index
        older = {
            statement_of(entry): (leaf, since)
            for leaf, (entry, since) in wanted.items()
            if since <= last
        }
        found: dict[bytes, int] = {}
        if older:
            start = min(since for _, since in older.values())
            for index, entry in islice(view.entries(start), last + 1 - start):
                leaf, since = older.get(statement_of(entry), (b"", 0))
                if leaf and index >= since:
                    found.setdefault(leaf, index)
        return found

    def _proven_before(self, view: LogView, index: int) -> Proven:
        """Return an entry of a former key with its proof, under the last checkpoint that this key signed."""
        ended = self._signer.chain.after_entry(index)
        assert ended is not None, "it is before a hand-over"
        size = ended.index + 1
        proof = view.inclusion_proof(index, size)
        return Proven(view.entry(index), index, size, proof, ended.checkpoint)

    def recover(self) -> int:
        """Complete an append that a crash left signed but unpublished; return the log's size.

        At server start, before the log is read (D10). Takes the lock.
        """
        with translated(), self._disk.lock(self._directory / "lock"):
            return self._recovered()[0].size

    def _view(self) -> LogView:
        return LogView(self._disk, self._directory, self._read_note()[1])

    def _read_note(self) -> tuple[bytes, Checkpoint]:
        """Return the checkpoint's bytes, and the parsed checkpoint.

        The file is overwritten in place, so a reader without the lock may see a torn one, and reads again.
        """
        with translated():
            try:
                note = self._disk.read(self._directory / "checkpoint")
                while (verified := self._verify(note)) is None:
                    torn, note = note, self._disk.read(self._directory / "checkpoint")
                    if note == torn:
                        raise damaged("its checkpoint does not verify with the log's key")
            except FileNotFoundError as error:
                raise damaged("it has no checkpoint") from error
        return verified

    def _verify(self, note: bytes) -> tuple[bytes, Checkpoint] | None:
        """Return the note and its checkpoint; None if it does not verify."""
        verified = self._verified
        if verified is None or verified[0] != note:
            try:
                verified = self._verified = note, open_checkpoint(note, self._signer.key)
            except ValueError:
                return None
        return verified

    def _recovered(self) -> tuple[LogView, bytes]:
        """Return the verified view to append to, and its note; first complete an interrupted append."""
        self._signer.check_in_use()
        note, checkpoint = self._read_note()
        view = LogView(self._disk, self._directory, checkpoint)
        view.verify_edge()
        try:
            started = self._disk.read(self._directory / "checkpoint.next")
            pending = parse_text("\n".join(started.decode().split("\n")[:3]) + "\n")
        except (FileNotFoundError, ValueError):
            # Absent, or torn before its text was complete: no signature of that tree can exist here.
            return view, note
        if pending == view.checkpoint or _was_published(pending, view):
            return view, note
        if pending.origin != self._signer.name or pending.size <= view.size:
            raise damaged("a checkpoint was begun that does not continue the published one")
        grown = LogView(self._disk, self._directory, pending)
        if grown.root_at(view.size) != view.checkpoint.root:
            raise damaged("a checkpoint was begun that contradicts the published one")
        for _ in grown.entries(view.size):
            pass  # verifies that every entry about to be signed is readable
        return grown, self._sign_and_publish(pending)

    def _grow(self, view: LogView, new: dict[bytes, bytes]) -> tuple[LogView, bytes]:
        """Append `new` (leaf hash -> entry) to the view's tree; make it durable, sign and publish it."""
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
        """Sign a tree whose bytes are all durable. Ed25519 is deterministic: a repeat gives the same note."""
        return self._publish_signed(
            checkpoint, self._signer.sign_checkpoint(checkpoint.size, checkpoint.root)
        )

    def _publish_signed(self, checkpoint: Checkpoint, note: bytes) -> bytes:
        _publish(self._disk, self._directory, note)
        self._verified = note, checkpoint
        return note


def _was_published(pending: Checkpoint, view: LogView) -> bool:
    """Return whether this is the checkpoint that the published one replaced."""
    is_older = pending.origin == view.checkpoint.origin and pending.size < view.size
    return is_older and merkle.root(0, pending.size, view.node) == pending.root


def _publish(disk: LogDisk, directory: Path, note: bytes) -> None:
    # Overwrite in place: if a crash left this same note, another crash cannot lose it now.
    disk.extend_synced([Piece(directory / "checkpoint.next", 0, note)])
    disk.rename_synced(directory / "checkpoint.next", directory / "checkpoint")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise Error(Kind.NOT_FOUND, message)
