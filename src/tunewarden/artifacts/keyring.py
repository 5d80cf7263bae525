"""The keyring: one age identity (private key) per artifact, each of which can be erased for good. The port and its types.

Keys are kept in shards, which are rewritten as a whole and counted: a shard whose generation fell was restored from an
older copy. # I3, I10, D6
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pyrage import x25519


class KeyErased(Exception):
    """The key is not in the keyring: it was erased, or never created."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id}")
        self.key_id = key_id


class Method(StrEnum):
    """How a key was erased. These words appear in receipts; their meaning never changes."""

    REWRITTEN = "shard-rewritten-under-a-fresh-key-and-predecessors-overwritten"
    ABSENT = "already-absent"


class Assurance(StrEnum):
    """What the overwriting guarantees. These words appear in receipts. # I17."""

    # The file system overwrites in place. What the medium below keeps is unknown.
    FILESYSTEM = "filesystem"
    # The files were overwritten and unlinked; the file system may keep old blocks.
    LOGICAL = "logical"


@dataclass(frozen=True, slots=True)
class Key:
    """A new key: its id, and the age recipient (public key) to encrypt to. Not secret."""

    id: str
    recipient: str


@dataclass(frozen=True, slots=True)
class ErasedKey:
    """What an erasure did. With `ABSENT`, both generations are the one found without the key."""

    key_id: str
    shard: int
    generation_before: int
    generation_after: int
    method: Method
    assurance: Assurance


class Keyring(Protocol):
    """The store of the artifacts' keys. Any number of processes and threads may share it.

    A malformed key id raises ValueError (a bug of the caller). Every method may raise Error(UNAVAILABLE), for a damaged
    shard or a failing store.
    """

    def create(self) -> Key:
        """Create a key; durable when this returns."""

    def create_many(self, count: int) -> list[Key]:
        """Create `count` keys; durable when this returns. On failure, some unreferenced ones may exist: harmless."""

    def open(self, key_id: str) -> x25519.Identity:
        """Return the identity that decrypts what was sealed to the key. Raises `KeyErased`."""

    def derive_many(self, key_ids: Iterable[str], purpose: bytes) -> dict[str, bytes]:
        """Derive a 32-byte secret from each key that exists. Without the key it cannot be derived."""

    def contains(self, key_id: str) -> bool:
        """Return whether the key is in the keyring."""

    def generation(self, shard: int) -> int:
        """Return how many times the shard has been written; monotonic. 0: never."""

    def generations(self) -> dict[int, int]:
        """Return the generation of every shard. Not for the hot path."""

    def shard_of(self, key_id: str) -> int:
        """Return the shard of a key id."""

    def key_ids(self, shard: int) -> list[str]:
        """Return the ids of a shard's keys. Not for the hot path."""

    def shards(self) -> list[int]:
        """Return the numbers of all shards, in order. Not for the hot path."""

    def erase(self, key_id: str) -> ErasedKey:
        """Erase a key; durable when this returns. Idempotent: a repeat reports it absent. # D6."""

    def erase_many(self, key_ids: Sequence[str]) -> list[ErasedKey]:
        """Erase keys; results are in the order given.

        Each shard changes atomically and durably; on failure, call it again. # D6, I3
        """

    def recover(self) -> None:
        """Complete changes that a crash interrupted. Required at start, before anything is read (D10)."""

    def reserve(self) -> None:
        """Reserve the space that erasures need on a full disk. # I20."""

    def damaged(self) -> list[int]:
        """Check every shard; return the damaged ones, whose models are lost unless they are restored."""
