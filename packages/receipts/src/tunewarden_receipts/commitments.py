"""Commitments: the log's form of values that must stay confidential (I9).

A commitment is an HMAC-SHA-256 under the artifact's salt: 32 random bytes that are kept in the database and
disclosed in the Owner's receipt only. With the salt a value can be checked; without it, not even a guess can.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden_receipts import merkle
from tunewarden_receipts.canonical import canonical

SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class ListCommitment:
    """How many items a list has, and the Merkle root (hex) over their commitments. RFC 6962 §2.1."""

    count: int
    root: str


def commit(salt: bytes, member: str, value: Any) -> str:
    """Return the commitment, in hex, to the value (a text, or JSON) of a member of this name."""
    return _commitment(salt, member, value).hex()


def commit_list(salt: bytes, member: str, items: Sequence[Any]) -> ListCommitment:
    """Return the commitment to a list of JSON values."""
    leaves = [merkle.leaf_hash(_commitment(salt, member, item)) for item in items]
    root = merkle.root(0, len(leaves), merkle.nodes_of(leaves))
    return ListCommitment(len(leaves), root.hex())


def _commitment(salt: bytes, member: str, value: Any) -> bytes:
    if len(salt) != SALT_BYTES:
        raise ValueError("a salt has 32 bytes")
    text = value.encode() if isinstance(value, str) else canonical(value)
    # A member's values are all texts or all objects, and no name contains a colon, so no two inputs are the same.
    return hmac.digest(salt, b"%b:%b" % (member.encode(), text), "sha256")
