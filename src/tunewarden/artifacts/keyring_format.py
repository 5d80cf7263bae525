"""The file formats of the keyring: slots, which hold a shard's key-encryption key (KEK), and rings.

Keys stay bytes from end to end; only pyrage sees them as text, during a call. No repr
here shows one.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pyrage import x25519

from tunewarden.ids import random_bytes

SLOT_BYTES = 4096
TOKEN_BYTES = 24
IDENTITY_BYTES = 74  # "AGE-SECRET-KEY-1" and 58 characters of Bech32: age's text for 32 bytes

_SLOT_MAGIC = b"tunewarden-kek-1"
_RING_MAGIC = b"tunewarden-ring-1\n"
_CHECKSUM_BYTES = 32
_RECORD_BYTES = TOKEN_BYTES + IDENTITY_BYTES
# Up to this many tokens are searched for one by one.
_FEW = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """A KEK and the generation of the ring that it decrypts. Generation 0 is blank: no key."""

    generation: int
    kek: bytes = field(repr=False, default=b"")

    def encode(self) -> bytes:
        """Return 4 KiB: magic, generation, KEK, random padding, SHA-256 of all before it.

        A blank slot is random from the 25th byte on; its checksum distinguishes it from a slot whose
        overwriting was interrupted.
        """
        head = _SLOT_MAGIC + self.generation.to_bytes(8) + self.kek
        body = head + random_bytes(SLOT_BYTES - _CHECKSUM_BYTES - len(head))
        return body + hashlib.sha256(body).digest()


def decode_slot(data: bytes) -> Slot | None:
    """Return the slot, or None if it is torn or has another format."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(data) != SLOT_BYTES or hashlib.sha256(body).digest() != checksum:
        return None
    magic, rest = body[: len(_SLOT_MAGIC)], body[len(_SLOT_MAGIC) :]
    if magic != _SLOT_MAGIC:
        return None
    generation = int.from_bytes(rest[:8])
    return Slot(generation, rest[8 : 8 + IDENTITY_BYTES] if generation else b"")


class Ring:
    """The identities of one shard: fixed-size records of a token and an identity, unordered."""

    __slots__ = ("_records",)

    def __init__(self, records: bytes = b"") -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records) // _RECORD_BYTES

    def __repr__(self) -> str:
        return f"Ring({len(self)} keys)"

    def find(self, token: bytes) -> bytes | None:
        """Return the identity text of a token, or None."""
        start = _start(self._records, token)
        return None if start < 0 else self._records[start + TOKEN_BYTES : start + _RECORD_BYTES]

    def find_many(self, tokens: Collection[bytes]) -> dict[bytes, bytes]:
        """Return the tokens that exist, with their identity texts; many cost one pass."""
        if len(tokens) <= _FEW:
            pairs: Iterable[tuple[bytes, bytes | None]] = ((one, self.find(one)) for one in tokens)
        else:
            records, wanted = self._records, set(tokens)
            names = ((start, token) for start, token in _tokens(records) if token in wanted)
            pairs = (
                (token, records[start + TOKEN_BYTES : start + _RECORD_BYTES])
                for start, token in names
            )
        return {token: identity for token, identity in pairs if identity is not None}

    def names(self) -> list[bytes]:
        """Return the token of each record."""
        return [token for _, token in _tokens(self._records)]

    def with_added(self, keys: Iterable[tuple[bytes, bytes]]) -> "Ring":
        """Return a ring with these (token, identity text) pairs added."""
        return Ring(self._records + b"".join(token + identity for token, identity in keys))

    def without(self, tokens: Iterable[bytes]) -> "Ring":
        """Return a ring without these tokens."""
        records = self._records
        for token in tokens:
            start = _start(records, token)
            if start >= 0:
                records = records[:start] + records[start + _RECORD_BYTES :]
        return Ring(records)

    def encode(self) -> bytes:
        """Return the ring's plaintext, to be encrypted at once."""
        return _RING_MAGIC + self._records


def decode_ring(plain: bytes) -> Ring | None:
    """Return the ring, or None if the bytes are not one."""
    records = plain[len(_RING_MAGIC) :]
    if not plain.startswith(_RING_MAGIC) or len(records) % _RECORD_BYTES:
        return None
    return Ring(records)


def _tokens(records: bytes) -> Iterable[tuple[int, bytes]]:
    """Yield the offset and the token of each record."""
    for start in range(0, len(records), _RECORD_BYTES):
        yield start, records[start : start + TOKEN_BYTES]


def _start(records: bytes, token: bytes) -> int:
    """Return the offset of the token's record, or -1. Matches inside other records do not count."""
    start = records.find(token)
    while start > 0 and start % _RECORD_BYTES:
        start = records.find(token, start + 1)
    return start


def ring_bytes(keys: int) -> int:
    """Return the plaintext length of a ring of `keys` keys."""
    return len(_RING_MAGIC) + keys * _RECORD_BYTES


def new_identity() -> tuple[bytes, str]:
    """Return the text of a fresh age identity, as bytes, and of its recipient."""
    identity = x25519.Identity.generate()
    return str(identity).encode(), str(identity.to_public())


def parse_identity(text: bytes) -> x25519.Identity:
    """Parse an identity."""
    return x25519.Identity.from_str(text.decode())
