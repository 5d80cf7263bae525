"""The append-only log of deletions and audit digests: a Merkle tree under a signed checkpoint (I4). The port."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tunewarden.transparency.key import LogSigner


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry's index and inclusion proof in the tree of `size` that the note `checkpoint` signs.

    Entry and checkpoint are signed by one key.
    """

    entry: bytes
    index: int
    size: int
    proof: list[bytes]
    checkpoint: bytes


class Log(Protocol):
    """The deletion log. Any number of processes and threads may share it; one append runs at a time.

    Every method may raise Error(UNAVAILABLE), for a damaged log or a failing store; the message says what to do.
    """

    def size(self) -> int:
        """Return how many entries the newest checkpoint covers."""

    def checkpoint(self) -> bytes:
        """Return the newest signed note, verified. C2SP tlog-checkpoint."""

    def checkpoint_over(self, index: int) -> bytes:
        """Return the newest checkpoint by the key that signed an entry: the newest one, or its key's last."""

    def entry(self, index: int) -> bytes:
        """Return one entry, verified against the checkpoint. Error(NOT_FOUND) beyond it."""

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (index, entry) from `start` to the size at the call, each verified; constant memory."""

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Return the inclusion proof of entry `index` in the tree of `size`. RFC 6962 §2.1.1."""

    def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """Return the consistency proof between the trees of `first` and `second`. RFC 6962 §2.1.2."""

    def tile(self, path: str) -> bytes | None:
        """Return the tile at a C2SP tlog-tiles path `tile/…`; None for an invalid or unpublished path."""

    def append_proven(self, entries: Sequence[tuple[bytes, int]]) -> list[Proven]:
        """Append (entry, since) pairs under one signature: all become durable leaves, or none. Return their proofs.

        `since` is the log's size that the caller stored before its first attempt: an identical entry at or after it is
        returned and not appended again, so an append is idempotent after any crash or error. An entry that a former
        key signed is identical if its statement is.
        """

    def hand_over(self, entry: bytes, successor: LogSigner) -> bytes:
        """Append `entry`, unless it is the last one; publish the checkpoint signed by both keys, and return it.

        From then on only the successor may append. Idempotent until it has.
        """

    def recover(self) -> int:
        """Complete an append that a crash left signed but unpublished; return the log's size. At start (D10)."""
