"""Encrypts short client texts, such as a file's name, for a database column.

ChaCha20-Poly1305 under a key that HMAC-SHA256 derives from an artifact's age identity, so that erasing
the identity (D6) makes every copy undecipherable: rows, free pages, the WAL, and backups. It needs no
key of its own, and is 30 times as fast as an age file per row of a list. # I18, docs/decisions/0017
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.errors import Error, Kind
from tunewarden.ids import random_bytes

_PURPOSE = b"tunewarden text 1"
_NONCE_BYTES = 12


def keys_of(keyring: Keyring, key_ids: Iterable[str]) -> dict[str, bytes]:
    """Return the text-encryption secrets of the keys that were not erased."""
    return keyring.derive_many(key_ids, _PURPOSE)


def key_of(keyring: Keyring, key_id: str) -> bytes:
    """Return the text-encryption secret of one key. Raises KeyErased."""
    found = keys_of(keyring, [key_id])
    if key_id not in found:
        raise KeyErased(key_id)
    return found[key_id]


def seal(secret: bytes, context: str, text: str) -> bytes:
    """Return nonce and ciphertext. `context` (associated data) is the internal id of the text's artifact."""
    nonce = random_bytes(_NONCE_BYTES)
    sealed: bytes = _cipher()(secret).encrypt(nonce, text.encode(), context.encode())
    return nonce + sealed


def unseal(secret: bytes, context: str, sealed: bytes) -> str:
    """Return the text. Raises Error(UNAVAILABLE) if it is damaged or was sealed with another key or context."""
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        plain: bytes = _cipher()(secret).decrypt(nonce, rest, context.encode())
    except (_invalid(), ValueError) as error:
        raise Error(
            Kind.UNAVAILABLE,
            "A stored name is damaged, or sealed to another key.",
            code="stored_bytes_damaged",
        ) from error
    return plain.decode()


# Imported late: a worker without files does not need OpenSSL's start-up time and memory.
@cache
def _cipher() -> Any:
    from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415  it loads OpenSSL

    return aead.ChaCha20Poly1305


@cache
def _invalid() -> type[Exception]:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  it loads OpenSSL

    return InvalidTag
