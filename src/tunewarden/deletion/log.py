"""The append-only log of deletions: a Merkle tree in C2SP tiles, one leaf for each deletion (I4).

The signed checkpoint is the truth. An append makes bytes durable in this order:

1. the entry bundle and hash tiles of the new tree, under names no checkpoint refers to yet;
2. `checkpoint.next`, the signed checkpoint that covers them;
3. `checkpoint`, by renaming that file.

A crash before the text of 2 is whole leaves bytes beyond the checkpoint; they are not part of the
log and the next append writes over them. From there on a signature may exist, so the next append,
or `recover`, finishes this very tree before anything else: never are two roots signed for one size
(I11). Every append first recomputes the signed root from what is on disk, so that damage is
reported and never signed.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunewarden.deletion import merkle, tiles
from tunewarden.deletion.log_disk import DirectoryLogDisk, LogDisk
from tunewarden.deletion.log_key import LogSigner
from tunewarden.deletion.log_view import LogView, damaged, translated
from tunewarden.deletion.note import Checkpoint, open_checkpoint, parse_text
from tunewarden.deletion.tiles import ENTRIES, MAX_ENTRY_BYTES, TILE_WIDTH, TileName
from tunewarden.errors import Error, Kind


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry stands, and the size of the tree whose signed checkpoint covers it."""

    index: int
    size: int


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
        return self._read_checkpoint().size

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
        if not all(0 < len(entry) <= MAX_ENTRY_BYTES for entry in entries):
            raise Error(Kind.TOO_LARGE, "An entry of the log has 1 to 65,535 bytes.")
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        wanted = dict(zip(leaves, entries, strict=True))
        with translated(), self._disk.lock(self._directory / "lock"):
            view = self._recovered()
            if not 0 <= since <= view.size:
                raise Error(
                    Kind.UNAVAILABLE,
                    "The deletion log is older than the database: one of them was restored. "
                    "Restore the newest copy of the log's directory, then start again.",
                    code="log_rolled_back",
                )
            found: dict[bytes, int] = {}
            for index, leaf in view.leaf_hashes(since):
                if leaf in wanted and found.setdefault(leaf, index) == index:
                    view.entry(index)  # proves that the bytes are there, and not only their hash
            new = {leaf: entry for leaf, entry in wanted.items() if leaf not in found}
            size = view.size + len(new)
            if new:
                self._grow(view, list(new), list(new.values()))
                found.update(zip(new, range(view.size, size), strict=True))
        return [Appended(found[leaf], size) for leaf in leaves]

    def recover(self) -> int:
        """Finish an append that a crash left signed but unpublished; return the log's size.

        For the start of a server, before the log is read (D10). Takes the lock.
        """
        with translated(), self._disk.lock(self._directory / "lock"):
            return self._recovered().size

    def _view(self) -> LogView:
        checkpoint = self._read_checkpoint()
        return LogView(self._disk, self._directory, checkpoint, self._read_checkpoint)

    def _read_checkpoint(self) -> Checkpoint:
        return self._read_note()[1]

    def _read_note(self) -> tuple[bytes, Checkpoint]:
        with translated():
            try:
                note = self._disk.read(self._directory / "checkpoint")
                if self._verified is None or self._verified[0] != note:
                    self._verified = note, open_checkpoint(note, self._signer.key)
            except FileNotFoundError as error:
                raise damaged("it has no checkpoint") from error
            except ValueError as error:
                raise damaged("its checkpoint does not verify with the log's key") from error
        return self._verified

    def _recovered(self) -> LogView:
        """Return the verified view to append to, after finishing what a crash left signed."""
        view = self._view()
        view.verify_edge()
        try:
            note = self._disk.read(self._directory / "checkpoint.next")
            begun = parse_text("\n".join(note.decode().split("\n")[:3]) + "\n")
        except (FileNotFoundError, ValueError):
            # Absent, or torn before its text was whole: no signature of that tree can exist here.
            return view
        if begun == view.checkpoint:
            return view
        if begun.origin != self._signer.name or begun.size <= view.size:
            raise damaged("a checkpoint was begun that does not continue the published one")
        grown = LogView(self._disk, self._directory, begun, lambda: begun)
        if grown.root_at(view.size) != view.checkpoint.root:
            raise damaged("a checkpoint was begun that contradicts the published one")
        for _ in grown.entries(view.size):
            pass  # proves that every entry that is about to be signed for is readable
        self._sign_and_publish(begun.size, begun.root)
        return self._view()

    def _grow(self, view: LogView, leaves: list[bytes], entries: list[bytes]) -> None:
        """Make the tree with `leaves` after the view's durable, then signed, then published."""
        size = view.size + len(leaves)
        hash_tiles = _grown_tiles(view, leaves)
        self._write(ENTRIES, _grown_bundles(view, entries), size)
        for (level, index), data in hash_tiles.items():
            self._write(level, {index: data}, size)

        def nodes(level: int, index: int) -> bytes:
            if (index + 1) << level <= view.size:
                return view.node(level, index)
            return tiles.node_in(hash_tiles[tiles.tile_of_node(level, index)], level, index)

        self._sign_and_publish(size, merkle.root(0, size, nodes))
        with suppress(OSError):  # the entry is logged; the next append discards what is left over
            self._discard_partials(view.size, size)

    def _write(self, level: int, contents: dict[int, bytes], size: int) -> None:
        for index, data in contents.items():
            name = TileName(level, index, tiles.width_at(level, index, size))
            path = self._directory / name.path()
            self._disk.make_directory_synced(path.parent)
            self._disk.write_synced(path, data)

    def _sign_and_publish(self, size: int, root: bytes) -> None:
        """Sign a tree whose every byte is durable. Ed25519 gives the same note each time."""
        _publish(self._disk, self._directory, self._signer.sign_checkpoint(size, root))

    def _discard_partials(self, before: int, size: int) -> None:
        """Unlink the partial tiles that wider ones replaced, also those of crashed appends."""
        level = ENTRIES
        while size >> (tiles.TILE_HEIGHT * max(level, 0)):
            shift = tiles.TILE_HEIGHT * (max(level, 0) + 1)
            edge = size >> shift
            for index in {before >> shift, edge, max(0, edge - 1)}:
                kept = tiles.width_at(level, index, size) % TILE_WIDTH
                directory = self._directory / TileName(level, index).partials()
                names = self._disk.names(directory)
                for name in names:
                    if name != str(kept):
                        self._disk.unlink(directory / name)
                if names and not kept:
                    self._disk.unlink(directory)
            level += 1


def _publish(disk: LogDisk, directory: Path, note: bytes) -> None:
    disk.write_synced(directory / "checkpoint.next", note)
    disk.rename_synced(directory / "checkpoint.next", directory / "checkpoint")


def _grown_tiles(view: LogView, leaves: list[bytes]) -> dict[tuple[int, int], bytes]:
    """Return the hash tiles, by (level, index), that differ once `leaves` follow the view's."""
    grown: dict[tuple[int, int], bytes] = {}
    level, size, added = 0, view.size, leaves
    while added:
        index, used = divmod(size, TILE_WIDTH)
        old = tiles.hashes_of(view.tile(level, index))[:used] if used else []
        roots: list[bytes] = []
        for number, hashes in enumerate(_chunks(old + added), index):
            grown[level, number] = b"".join(hashes)
            if len(hashes) == TILE_WIDTH:
                roots.append(merkle.complete_root(hashes))
        level, size, added = level + 1, size // TILE_WIDTH, roots
    return grown


def _grown_bundles(view: LogView, entries: list[bytes]) -> dict[int, bytes]:
    """Return the entry bundles, by index, that differ once `entries` follow the view's."""
    index, used = divmod(view.size, TILE_WIDTH)
    old = view.bundle(index) if used else []
    return {n: tiles.encode_bundle(part) for n, part in enumerate(_chunks(old + entries), index)}


def _chunks(items: list[bytes]) -> Iterator[list[bytes]]:
    return (items[at : at + TILE_WIDTH] for at in range(0, len(items), TILE_WIDTH))


def _require(condition: object, message: str) -> None:
    if not condition:
        raise Error(Kind.NOT_FOUND, message)
