"""Blobs: encrypted files, written once, read as streams, erased for good. The port and its types."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

_OWNER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
_NAME = re.compile(rf"{_OWNER}/[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}")
_PREFIX = re.compile(rf"(?:{_OWNER}/)?")


class BlobErased(Exception):
    """The blob does not exist: it was erased, or never written."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no blob {name}")
        self.name = name


@dataclass(frozen=True, slots=True)
class ErasedBlob:
    """What one erasure found and overwrote; nothing if `versions` is 0. # I15, I17."""

    name: str
    bytes: int
    versions: int


class Blobs(Protocol):
    """A store of encrypted files, by names such as `<internal id>/<file>`.

    A malformed name raises ValueError (a bug of the caller). A failing store raises `Error`.
    """

    def put(self, name: str, chunks: Iterable[bytes]) -> int:
        """Write a blob and return its length in bytes; durable when this returns.

        On failure nothing is left behind. A blob is written once: an existing name raises
        ValueError.
        """

    def open(self, name: str) -> BinaryIO:
        """Open a blob for reading. Raises `BlobErased` if it does not exist."""

    def names(self, prefix: str) -> list[str]:
        """Return the blobs under `<internal id>/`, or all for the empty prefix, sorted."""

    def owners(self) -> list[str]:
        """Return the internal ids that have blobs, unordered: far less data than all names."""


class ErasableBlobs(Blobs, Protocol):
    """Blobs with the operations of deletion and start-up."""

    def erase(self, name: str) -> ErasedBlob:
        """Erase every version of a blob; durable when this returns. Idempotent. # D9, I15."""

    def recover(self) -> None:
        """Remove leftovers of unfinished writes. Only while no other process writes (at start)."""


def checked_name(name: str) -> str:
    """Return the name. Raises ValueError unless it is `<internal id>/<file>`."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a blob name: {name!r}")
    return name


def checked_prefix(prefix: str) -> str:
    """Return the prefix. Raises ValueError unless it is empty or `<internal id>/`."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not a blob prefix: {prefix!r}")
    return prefix
