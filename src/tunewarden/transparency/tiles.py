"""The names and bytes of C2SP tlog-tiles. Pure.

A tile is up to 256 hashes of one level (`level` counts tiles: hashes at level L are the roots of
256**L leaves); an entry bundle is up to 256 entries. `width` is how many a tile or bundle holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tunewarden_receipts import merkle

TILE_WIDTH = 256
TILE_HEIGHT = 8
MAX_ENTRY_BYTES = 65_535
ENTRIES = -1  # the "level" of entry bundles: indexed and truncated like level 0

_NAME = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/"
    r"(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class TileName:
    """One tile (`level` >= 0) or entry bundle (`level` = ENTRIES) of one width."""

    level: int
    index: int
    width: int = TILE_WIDTH

    def path(self) -> str:
        """Return `tile/<L>/<N>[.p/<W>]`."""
        full = self.partials().removesuffix(".p")
        return full if self.width == TILE_WIDTH else f"{full}.p/{self.width}"

    def partials(self) -> str:
        """Return the directory that holds the partial tiles of this index."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        level = "entries" if self.level == ENTRIES else str(self.level)
        return (
            f"tile/{level}/" + "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:]) + ".p"
        )

    @staticmethod
    def parse(path: str) -> "TileName | None":
        """Parse a path; None if it is not the canonical path of a tile."""
        match = _NAME.fullmatch(path)
        if not match:
            return None
        level = ENTRIES if match["level"] == "entries" else int(match["level"])
        index = int(match["index"].replace("x", "").replace("/", ""))
        width = int(match["width"] or TILE_WIDTH)
        name = TileName(level, index, width)
        return name if name.path() == path else None


def width_at(level: int, index: int, size: int) -> int:
    """Return the width of tile `index` of `level` in a tree of `size` leaves (0: it does not exist)."""
    count = size >> (TILE_HEIGHT * max(level, 0))
    return max(0, min(TILE_WIDTH, count - index * TILE_WIDTH))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return the entries, each after its length as a big-endian uint16. C2SP tlog-tiles."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def bundle_ends(data: bytes, width: int) -> list[int]:
    """Return the end offset of each of the first `width` entries; `ValueError` if any is missing."""
    ends: list[int] = []
    at = 0
    for _ in range(width):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
        ends.append(at)
    if at > len(data):
        raise ValueError("the bundle is short")
    return ends


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the `width` entries of a bundle; `ValueError` if it is not exactly that wide."""
    ends = [0, *bundle_ends(data, width)]
    if ends[-1] != len(data):
        raise ValueError("the bundle is long")
    return [data[start + 2 : end] for start, end in pairwise(ends)]


def hashes_of(tile: bytes) -> list[bytes]:
    """Return the hashes of a tile, left to right."""
    step = merkle.HASH_BYTES
    return [tile[at : at + step] for at in range(0, len(tile), step)]


def tile_of_node(level: int, index: int) -> tuple[int, int]:
    """Return (tile level, tile index) of the tile from which a subtree's hash is computed."""
    tile_level, height = divmod(level, TILE_HEIGHT)
    return tile_level, (index << height) // TILE_WIDTH


def node_in(tile: bytes, level: int, index: int) -> bytes:
    """Return the hash of a complete subtree from its tile (see `tile_of_node`)."""
    height = level % TILE_HEIGHT
    start = (index << height) % TILE_WIDTH * merkle.HASH_BYTES
    return merkle.complete_root(hashes_of(tile[start : start + (merkle.HASH_BYTES << height)]))
