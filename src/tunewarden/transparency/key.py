"""The log's signing key: one Ed25519 seed in one file, created once."""

import fcntl
import hmac
import os
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.ids import random_bytes
from tunewarden_receipts.note import Checkpoint, LogKey, check_name

SEED_BYTES = 32


class LogSigner:
    """Signs as the log `name` (its C2SP origin). The seed never leaves the object."""

    def __init__(self, name: str, seed: bytes) -> None:
        """`ValueError` for a name that is not a log's or a seed that is not 32 bytes."""
        # Imported late, so that importing the log does not load OpenSSL.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  see above
            Ed25519PrivateKey,
        )

        self.name = check_name(name)
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = LogKey(self._private.public_key().public_bytes_raw(), self.name)

    @classmethod
    def create_or_load(cls, path: Path, name: str) -> "LogSigner":
        """Return the signer of the seed in `path`; a missing file is created durably, mode 0600.

        Concurrent processes get the same seed. A crash leaves either no file or a
        complete one. Error(UNAVAILABLE) if the file is damaged, cannot be read or created, or others
        can read it.
        """
        try:
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                if not path.exists():
                    _create(path, directory)
            finally:
                os.close(directory)
            return cls(name, _load(path))
        except OSError as error:
            raise Error(
                Kind.UNAVAILABLE,
                "The log's signing key can be neither read nor made: check that its directory "
                "exists, belongs to the server and is not full.",
            ) from error

    def sign(self, message: bytes) -> bytes:
        """Return a 64-byte Ed25519 signature; deterministic. RFC 8032."""
        return self._private.sign(message)

    def derive(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for another purpose, from which neither the seed nor another secret follows."""
        return hmac.digest(self._seed, purpose, "sha256")

    def sign_checkpoint(self, size: int, root: bytes) -> bytes:
        """Return the signed note for a tree. Only the log may call it: a signature cannot be taken back."""
        checkpoint = Checkpoint(self.name, size, root)
        return checkpoint.note(self.key, self.sign(checkpoint.text().encode()))

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        return self.key.pem()

    def vkey(self) -> str:
        """Return the public key as a C2SP vkey."""
        return self.key.vkey(self.name)


def _create(path: Path, directory: int) -> None:
    """Create the seed file under the directory's lock, so that a torn `.new` is always a leftover."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(random_bytes(SEED_BYTES))
        file.flush()
        os.fsync(descriptor)
    # link(2) fails if the target exists: an existing key is never overwritten.
    os.link(new, path)
    new.unlink()
    os.fsync(directory)


def _load(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            raise Error(
                Kind.UNAVAILABLE,
                "Other users can read the log's signing key. Set its mode to 0600, and consider the key compromised.",
            )
        seed = file.read(SEED_BYTES + 1)
    if len(seed) != SEED_BYTES:
        raise Error(
            Kind.UNAVAILABLE,
            "The log's signing key is damaged: restore the file from its backup. Do not let a new "
            "one be made, for receipts already given name the old one.",
        )
    return seed
