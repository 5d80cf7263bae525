"""Reading a log: everything that leaves here was proven to stand under a signed checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from tunewarden.deletion import merkle, tiles
from tunewarden.deletion.log_disk import LogDisk
from tunewarden.deletion.note import Checkpoint
from tunewarden.deletion.tiles import ENTRIES, TILE_WIDTH, TileName
from tunewarden.errors import Error, Kind

# How often a reader may be overtaken by appends between reading the checkpoint and a tile.
_ATTEMPTS = 64
# Bounds the memory of a long iteration: 64 tiles are 512 KiB.
_CACHED_TILES = 64


def damaged(what: str) -> Error:
    """Return the error for a log that is not what its checkpoint says; nothing is repaired."""
    return Error(
        Kind.UNAVAILABLE,
        f"The deletion log is damaged: {what}. Nothing was changed. Stop the server, restore the "
        "log's directory from its newest copy, run `tunewarden doctor`, and start again. Do not "
        "start a new log: receipts already given would no longer belong to it.",
        code="log_damaged",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the disk raises into an `Error` that says what to do."""
    try:
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

    Holds no lock. Tiles of the checkpoint may be replaced by wider ones while it reads; they have
    the same beginning, so it follows `reload` to the newest checkpoint and reads those.
    """

    def __init__(
        self,
        disk: LogDisk,
        directory: Path,
        checkpoint: Checkpoint,
        reload: Callable[[], Checkpoint],
    ) -> None:
        self.checkpoint = checkpoint
        self.size = checkpoint.size
        self._disk = disk
        self._directory = directory
        self._reload = reload
        self._newest = checkpoint
        # Kept and forgotten together: a proof speaks of the bytes that were read, not of the file.
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._proven: set[int] = set()

    def verify_edge(self) -> None:
        """Recompute the root from the right edge, O(log n) tiles; `Error` if it is not as signed."""
        self.root_at(self.size)
        self._proven.add(self.size // TILE_WIDTH)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree, not yet proven. Is a `merkle.Nodes`."""
        known = self._nodes.get((level, index))
        if known is None:
            known = tiles.node_in(self.tile(*tiles.tile_of_node(level, index)), level, index)
            self._nodes[level, index] = known
        return known

    def root_at(self, size: int) -> bytes:
        """Return the proven root of the first `size` leaves."""
        root = merkle.root(0, size, self.node)
        proof = merkle.consistency_proof(size, self.size, self.node)
        if not merkle.verify_consistency(size, self.size, root, self.checkpoint.root, proof):
            raise damaged("its tiles do not give the root that was signed")
        return root

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the proven path of leaf `index` in the tree of `size`."""
        root = self.checkpoint.root if size == self.size else self.root_at(size)
        proof = merkle.inclusion_proof(index, size, self.node)
        if not merkle.verify_inclusion(self.node(0, index), index, size, proof, root):
            raise damaged(f"the tiles above entry {index} do not agree")
        return proof

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the proven path from the tree of `first` leaves to that of `second`."""
        roots = self.root_at(first), self.root_at(second)
        proof = merkle.consistency_proof(first, second, self.node)
        if not merkle.verify_consistency(first, second, *roots, proof):
            raise damaged(f"the tiles between {first} and {second} do not agree")
        return proof

    def leaf_hashes(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, proven leaf hash) from `start` on; reads 8 KiB for 256 of them."""
        for index in self._tiles_from(start):
            first = index * TILE_WIDTH
            # Only here, between proofs, so that what is proven is what is then read.
            if len(self._tiles) > _CACHED_TILES:
                self._forget()
            if index not in self._proven:
                # The path of one leaf passes by all other hashes of its tile: it proves them all.
                self.inclusion_proof(first, self.size)
                self._proven.add(index)
            hashes = tiles.hashes_of(self.tile(0, index))[: self.size - first]
            yield from islice(enumerate(hashes, first), max(0, start - first), None)

    def entries(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Yield (index, proven entry) from `start` on; reads no entry bundle before it."""
        for index in self._tiles_from(start):
            first = index * TILE_WIDTH
            yield from islice(enumerate(self.bundle(index), first), max(0, start - first), None)

    def entry(self, index: int) -> bytes:
        """Return one proven entry."""
        return self.bundle(index // TILE_WIDTH)[index % TILE_WIDTH]

    def bundle(self, index: int) -> list[bytes]:
        """Return the proven entries of bundle `index`, up to this view's size."""
        data, width = self._read(ENTRIES, index)
        first = index * TILE_WIDTH
        entries = self._decoded(data, index, width)[: self.size - first]
        hashes = [leaf for _, leaf in islice(self.leaf_hashes(first), len(entries))]
        if [merkle.leaf_hash(entry) for entry in entries] != hashes:
            raise damaged(f"entries in {TileName(ENTRIES, index).path()} are not those signed")
        return entries

    def tile(self, level: int, index: int) -> bytes:
        """Return a hash tile as wide as it is now, at least as wide as the view's; not yet proven."""
        known = self._tiles.get((level, index))
        if known is not None:
            return known
        data, width = self._read(level, index)
        if len(data) != width * merkle.HASH_BYTES:
            raise damaged(f"{TileName(level, index, width).path()} has a wrong length")
        self._tiles[level, index] = data
        return data

    def served(self, name: TileName) -> bytes | None:
        """Return the bytes of a published tile or bundle, cut to its width; not yet proven.

        C2SP tlog-tiles wants the partial tiles of old checkpoints served until the full tile
        exists. They are cut from the wider one, so that only the newest is kept.
        """
        if name.width > tiles.width_at(name.level, name.index, self.size):
            return None
        if name.level != ENTRIES:
            return self.tile(name.level, name.index)[: name.width * merkle.HASH_BYTES]
        data, width = self._read(ENTRIES, name.index)
        return tiles.encode_bundle(self._decoded(data, name.index, width)[: name.width])

    def _forget(self) -> None:
        self._tiles.clear()
        self._nodes.clear()
        self._proven.clear()

    def _tiles_from(self, start: int) -> range:
        """Return the indices of the lowest tiles that hold leaves from `start` to the end."""
        end = -(-self.size // TILE_WIDTH)
        return range(start // TILE_WIDTH if start < self.size else end, end)

    def _decoded(self, data: bytes, index: int, width: int) -> list[bytes]:
        try:
            return tiles.decode_bundle(data, width)
        except ValueError as error:
            raise damaged(f"{TileName(ENTRIES, index, width).path()} has a wrong length") from error

    def _read(self, level: int, index: int) -> tuple[bytes, int]:
        """Return the bytes and width of the newest tile that holds the view's."""
        for _ in range(_ATTEMPTS):
            width = tiles.width_at(level, index, self._newest.size)
            path = self._directory / TileName(level, index, width).path()
            with translated(), suppress(FileNotFoundError):
                return self._disk.read(path), width
            newest = self._reload()
            if newest.size <= self._newest.size:
                break
            self._newest = newest
        raise damaged(f"{TileName(level, index, width).path()} is missing")
