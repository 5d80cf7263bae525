"""The log's signing key: one Ed25519 seed in one file, created once, and rotated by a hand-over in the log."""

import hmac
from collections.abc import Callable
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.transparency.key_files import KeyFiles
from tunewarden_receipts.key_chain import KeyChain
from tunewarden_receipts.note import Checkpoint, LogKey, check_name


class LogSigner:
    """Signs as the log `name` (its C2SP origin). The seed never leaves the object."""

    def __init__(
        self,
        name: str,
        seed: bytes,
        *,
        chain: KeyChain | None = None,
        is_in_use: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        """`ValueError` for a name that is not a log's, a seed that is not 32 bytes, or a chain to another key."""
        # Imported late, so that importing the log does not load OpenSSL.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  see above
            Ed25519PrivateKey,
        )

        self.name = check_name(name)
        self._seed = seed
        self._is_in_use = is_in_use
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = LogKey(self._private.public_key().public_bytes_raw(), self.name)
        # The keys before this one, and what proves that they led to it.
        self.chain = chain or KeyChain(self.key)
        if self.chain.newest.public != self.key.public:
            raise ValueError("the hand-overs lead to another key")

    @classmethod
    def create_or_load(cls, path: Path, name: str) -> "LogSigner":
        """Return the signer of the seed in `path`; a missing file is created durably, mode 0600.

        Concurrent processes get the same seed. A crash leaves either no file or a
        complete one. Error(UNAVAILABLE) if the file is damaged, cannot be read or created, or others
        can read it.
        """
        files = KeyFiles(path)
        with files.locked():
            return cls(name, files.create_or_read(), is_in_use=files.is_in_use)

    def check_in_use(self) -> None:
        """Check that the key was not rotated since it was loaded. Raises Error(UNAVAILABLE)."""
        if not self._is_in_use(self._seed):
            raise Error(
                Kind.UNAVAILABLE,
                "The log's signing key was rotated, or its rotation was interrupted. Start the server again, or run"
                " `tunewarden log rotate-key`, which completes it; then run the command again.",
                code="log_key_rotated",
            )

    def sign(self, message: bytes) -> bytes:
        """Return a 64-byte Ed25519 signature; deterministic. RFC 8032."""
        return self._private.sign(message)

    def derive(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for another purpose, from which neither the seed nor another secret follows."""
        return hmac.digest(self._seed, purpose, "sha256")

    def sign_checkpoint(self, size: int, root: bytes) -> bytes:
        """Return the signed note for a tree. Only the log may call it: a signature cannot be taken back."""
        return self._note(Checkpoint(self.name, size, root))

    def sign_hand_over(self, size: int, root: bytes, former: "LogSigner") -> bytes:
        """Return the note for the tree that a hand-over ends, signed by this key and then by the former one."""
        checkpoint = Checkpoint(self.name, size, root)
        signature = former.sign(checkpoint.text().encode())
        return self._note(checkpoint) + checkpoint.line(former.key, signature).encode()

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        return self.key.pem()

    def vkey(self) -> str:
        """Return the public key as a C2SP vkey."""
        return self.key.vkey(self.name)

    def _note(self, checkpoint: Checkpoint) -> bytes:
        return checkpoint.note(self.key, self.sign(checkpoint.text().encode()))
