"""Verified reads of a log: every result is proven against a signed checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tunewarden import space
from tunewarden.errors import Error, Kind
from tunewarden.transparency import tiles
from tunewarden.transparency.disk import LogDisk
from tunewarden.transparency.tiles import ENTRIES, TILE_WIDTH, TileName
from tunewarden_receipts import merkle
from tunewarden_receipts.note import Checkpoint

# Bounds the memory of a long iteration: 64 tiles are 512 KiB.
_CACHED_TILES = 64


def damaged(what: str) -> Error:
    """Return the error for a log that contradicts its checkpoint; nothing is repaired."""
    return Error(
        Kind.UNAVAILABLE,
        f"The deletion log is damaged: {what}. Nothing was changed. Stop the server, restore the "
        "log's directory from its newest copy, run `tunewarden doctor`, and start again. Do not "
        "start a new log: receipts already given would no longer belong to it.",
        code="log_damaged",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Convert OSError to an `Error` that says what to do."""
    try:
        with space.translated():
            yield
    except OSError as error:
        raise Error(
            Kind.UNAVAILABLE,
            "The deletion log's volume failed: check its space, permissions and health, then try "
            "again. Trying again never logs the same deletion twice.",
            code="log_unavailable",
        ) from error


class LogView:
    """The log as of one verified checkpoint.

    Holds no lock. The files of its tiles may grow while it reads; it reads their beginnings.
    """

    def __init__(self, disk: LogDisk, directory: Path, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.size = checkpoint.size
        self._disk = disk
        self._directory = directory
        # Cached and dropped together: a proof is about the bytes read, not about the file.
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._proven: set[int] = set()

    def verify_edge(self) -> None:
        """Recompute the root from the right edge, O(log n) tiles; `Error` if it is not the signed one."""
        self.root_at(self.size)
        self._proven.add(self.size // TILE_WIDTH)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree, unverified. A `merkle.Nodes`."""
        known = self._nodes.get((level, index))
        if known is None:
            known = tiles.node_in(self.tile(*tiles.tile_of_node(level, index)), level, index)
            self._nodes[level, index] = known
        return known

    def root_at(self, size: int) -> bytes:
        """Return the verified root of the first `size` leaves."""
        root = merkle.root(0, size, self.node)
        proof = merkle.consistency_proof(size, self.size, self.node)
        if not merkle.verify_consistency(size, self.size, root, self.checkpoint.root, proof):
            raise damaged("its tiles do not give the root that was signed")
        return root

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the verified inclusion proof of leaf `index` in the tree of `size`."""
        root = self.checkpoint.root if size == self.size else self.root_at(size)
        proof = merkle.inclusion_proof(index, size, self.node)
        if not merkle.verify_inclusion(self.node(0, index), index, size, proof, root):
            raise damaged(f"the tiles above entry {index} do not agree")
        return proof

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the verified consistency proof between the trees of `first` and `second` leaves."""
        roots = self.root_at(first), self.root_at(second)
        proof = merkle.consistency_proof(first, second, self.node)
        if not merkle.verify_consistency(first, second, *roots, proof):
            raise damaged(f"the tiles between {first} and {second} do not agree")
        return proof

    def leaf_hashes(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, verified leaf hash) from `start` on; reads 8 KiB per 256 of them."""
        for index in self._tiles_from(start):
            first = index * TILE_WIDTH
            # Dropped only here, between proofs, so that the verified bytes are the ones used.
            if len(self._tiles) > _CACHED_TILES:
                self._forget()
            if index not in self._proven:
                # One leaf's inclusion proof covers all other hashes of its tile: it verifies them all.
                self.inclusion_proof(first, self.size)
                self._proven.add(index)
            hashes = tiles.hashes_of(self.tile(0, index))[: self.size - first]
            yield from islice(enumerate(hashes, first), max(0, start - first), None)

    def entries(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, verified entry) from `start` on; reads no entry bundle before it."""
        for index in self._tiles_from(start):
            first = index * TILE_WIDTH
            yield from islice(enumerate(self.bundle(index), first), max(0, start - first), None)

    def entry(self, index: int) -> bytes:
        """Return one verified entry."""
        return self.bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def bundle(self, index: int) -> list[bytes]:
        """Return the verified entries of bundle `index`, up to this view's size."""
        entries = self._entries(index, tiles.width_at(ENTRIES, index, self.size))
        hashes = [leaf for _, leaf in islice(self.leaf_hashes(index * TILE_WIDTH), len(entries))]
        if [merkle.leaf_hash(entry) for entry in entries] != hashes:
            raise damaged(f"entries in {TileName(ENTRIES, index).path()} are not those signed")
        return entries

    def end_of_bundle(self) -> int:
        """Return the offset in the newest bundle at which the next entry belongs.

        Verifies the entry before it. Call `verify_edge` first.
        """
        index, used = divmod(self.size, TILE_WIDTH)
        if not used:
            return 0
        data = self._read(ENTRIES, index)
        *_, start, end = 0, *self._ends(data, index, used)
        if merkle.leaf_hash(data[start + 2 : end]) != self.node(0, self.size - 1):
            raise damaged(f"entries in {TileName(ENTRIES, index).path()} are not those signed")
        return end

    def tile(self, level: int, index: int) -> bytes:
        """Return a hash tile at its width in this view; unverified."""
        known = self._tiles.get((level, index))
        if known is None:
            width = tiles.width_at(level, index, self.size)
            known = self._tiles[level, index] = self._hashes(level, index, width)
        return known

    def served(self, name: TileName) -> bytes | None:
        """Return the bytes of a published tile or bundle, truncated to its width; unverified.

        C2SP tlog-tiles requires the partial tiles of old checkpoints to be served until the full tile
        exists. They are prefixes of the one growing file.
        """
        if name.width > tiles.width_at(name.level, name.index, self.size):
            return None
        if name.level != ENTRIES:
            return self._hashes(name.level, name.index, name.width)
        return tiles.encode_bundle(self._entries(name.index, name.width))

    def grown_by(self, leaves: list[bytes]) -> tuple["LogView", dict[tuple[int, int], bytes]]:
        """Return the view of the tree with `leaves` appended, and the bytes added to its hash tiles.

        Nothing is written; the new tiles, by (level, index), are cached in the view.
        """
        grown = LogView(self._disk, self._directory, self.checkpoint)
        grown.size = self.size + len(leaves)
        added = dict(_added_hashes(self, leaves))
        grown._tiles = {
            (level, index): (
                self.tile(level, index) if tiles.width_at(level, index, self.size) else b""
            )
            + hashes
            for (level, index), hashes in added.items()
        }
        grown._nodes = dict(self._nodes)  # complete subtrees never change
        root = merkle.root(0, grown.size, grown.node)
        grown.checkpoint = Checkpoint(self.checkpoint.origin, grown.size, root)
        return grown, added

    def _forget(self) -> None:
        self._tiles.clear()
        self._nodes.clear()
        self._proven.clear()

    def _tiles_from(self, start: int) -> range:
        """Return the indices of the lowest tiles that hold leaves from `start` to the end."""
        end = -(-self.size // TILE_WIDTH)
        return range(start // TILE_WIDTH if start < self.size else end, end)

    def _entries(self, index: int, width: int) -> list[bytes]:
        data = self._read(ENTRIES, index)
        # A full bundle never changes; a partial one may have bytes of later entries.
        end = len(data) if width == TILE_WIDTH else (self._ends(data, index, width) or [0])[-1]
        try:
            return tiles.decode_bundle(data[:end], width)
        except ValueError as error:
            raise _wrong_length(ENTRIES, index) from error

    def _ends(self, data: bytes, index: int, width: int) -> list[int]:
        try:
            return tiles.bundle_ends(data, width)
        except ValueError as error:
            raise _wrong_length(ENTRIES, index) from error

    def _hashes(self, level: int, index: int, width: int) -> bytes:
        data = self._read(level, index)
        length = width * merkle.HASH_BYTES
        if len(data) < length or (width == TILE_WIDTH and len(data) != length):
            raise _wrong_length(level, index)
        return data[:length]

    def _read(self, level: int, index: int) -> bytes:
        """Return the bytes of a tile's file, which may have grown beyond this view."""
        name = TileName(level, index).path()
        with translated():
            try:
                return self._disk.read(self._directory / name)
            except FileNotFoundError as error:
                raise damaged(f"{name} is missing") from error


def _wrong_length(level: int, index: int) -> Error:
    return damaged(f"{TileName(level, index).path()} has a wrong length")


def _added_hashes(view: LogView, leaves: list[bytes]) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield, by (level, index), the bytes added to each hash tile by appending `leaves`."""
    level, size, added = 0, view.size, leaves
    while added:
        index, used = divmod(size, TILE_WIDTH)
        hashes = (tiles.hashes_of(view.tile(level, index)) if used else []) + added
        roots: list[bytes] = []
        for at in range(0, len(hashes), TILE_WIDTH):
            tile = hashes[at : at + TILE_WIDTH]
            yield (level, index), b"".join(tile[used:])
            if len(tile) == TILE_WIDTH:
                roots.append(merkle.complete_root(tile))
            index, used = index + 1, 0
        level, size, added = level + 1, size // TILE_WIDTH, roots
