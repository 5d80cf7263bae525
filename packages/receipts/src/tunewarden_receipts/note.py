"""C2SP signed notes, checkpoints and log keys, for signing and verifying.

Everything here is strict: one text for each value, `ValueError` for any other. Only Ed25519
(signature type 0x01).
"""

import base64
import re
from dataclasses import dataclass
from hashlib import sha256

PUBLIC_BYTES = 32
# C2SP signed-note: verifiers accept at least 16 signatures. The limit keeps notes small.
MAX_SIGNATURES = 17
# DER of SubjectPublicKeyInfo for Ed25519 up to the key's 32 bytes. RFC 8410 §4.
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_PEM_FIRST, _PEM_LAST = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_ED25519_TYPE = b"\x01"
# No space and no plus (C2SP), and nothing that JSON, a shell or a terminal could interpret.
# So no checkpoint text begins with "DSSEv1 ": the two kinds of signature can never be confused.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_HASH = re.compile(r"[A-Za-z0-9+/]{43}=")
_SIGNATURE_LINE = re.compile(r"— ([^\s+]{1,255}) ([A-Za-z0-9+/]+={0,2})")


def decode_base64(text: str) -> bytes:
    """Return the bytes of standard base64 in its one canonical spelling; else `ValueError`."""
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise ValueError("base64 is not canonical")
    return decoded


def encode_base64(data: bytes) -> str:
    """Return standard base64 with padding."""
    return base64.b64encode(data).decode()


def parse_number(text: str) -> int:
    """Return an ASCII decimal below 10**16 without leading zeroes; else `ValueError`."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a canonical decimal")
    return int(text)


def parse_hash(text: str) -> bytes:
    """Return the 32 bytes of a base64 hash line; else `ValueError`."""
    if not _HASH.fullmatch(text):
        raise ValueError("not a SHA-256 hash in base64")
    return decode_base64(text)


@dataclass(frozen=True, slots=True)
class LogKey:
    """A log's public key: 32 bytes of Ed25519, and the log's name if the text contained it."""

    public: bytes
    name: str | None = None

    @staticmethod
    def parse(text: bytes) -> "LogKey":
        """Return the key from PEM (SubjectPublicKeyInfo) or a C2SP vkey; else `ValueError`."""
        lines = text.decode("ascii").strip().splitlines()
        if len(lines) == 3 and (lines[0], lines[2]) == (_PEM_FIRST, _PEM_LAST):
            der = decode_base64(lines[1])
            if len(der) != len(_SPKI_PREFIX) + PUBLIC_BYTES or not der.startswith(_SPKI_PREFIX):
                raise ValueError("not an Ed25519 key")
            return LogKey(der[len(_SPKI_PREFIX) :])
        name, key_id, encoded = "".join(lines[:1]).split("+", 2)
        typed = decode_base64(encoded)
        key = LogKey(typed[1:], check_name(name))
        if len(lines) != 1 or len(key.public) != PUBLIC_BYTES or key.vkey(name) != lines[0]:
            raise ValueError(f"{key_id} is not the id of an Ed25519 key")
        return key

    def pem(self) -> bytes:
        """Return SubjectPublicKeyInfo in PEM, as `openssl` reads it."""
        return f"{_PEM_FIRST}\n{encode_base64(self._der())}\n{_PEM_LAST}\n".encode()

    def vkey(self, name: str) -> str:
        """Return C2SP's `<name>+<key id>+<base64>`."""
        return f"{name}+{self.note_id(name).hex()}+{encode_base64(_ED25519_TYPE + self.public)}"

    def note_id(self, name: str) -> bytes:
        """Return the 4 bytes that identify this key in a signed note. C2SP signed-note."""
        return sha256(name.encode() + b"\n" + _ED25519_TYPE + self.public).digest()[:4]

    def digest(self) -> str:
        """Return SHA-256 of the DER key in hex: the `keyid` in DSSE envelopes."""
        return sha256(self._der()).hexdigest()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Return whether this key signed `message`. RFC 8032."""
        # Late, so that a process that only reads a log does not load OpenSSL.
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  see above
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415  see above
            Ed25519PublicKey,
        )

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def _der(self) -> bytes:
        return _SPKI_PREFIX + self.public


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its origin, how many leaves, and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the note text that is signed. C2SP tlog-checkpoint; no extension lines."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"

    def note(self, key: LogKey, signature: bytes) -> bytes:
        """Return the signed note for a signature over `text()`."""
        return f"{self.text()}\n{self.line(key, signature)}".encode()

    def line(self, key: LogKey, signature: bytes) -> str:
        """Return the line of a signed note that holds a signature over `text()`."""
        return f"— {self.origin} {encode_base64(key.note_id(self.origin) + signature)}\n"


def check_name(name: str) -> str:
    """Return a log's name; `ValueError` if it is not valid."""
    if not _NAME.fullmatch(name):
        raise ValueError("a log's name is letters, digits and ._/:- (at most 255)")
    return name


def parse_text(text: str) -> Checkpoint:
    """Return the checkpoint that a note's text states, unverified; else `ValueError`."""
    origin, size, root, end = text.split("\n")
    if end:
        raise ValueError("the text does not end with its line")
    return Checkpoint(check_name(origin), parse_number(size), parse_hash(root))


def open_checkpoint(note: bytes, key: LogKey) -> Checkpoint:
    """Return a verified checkpoint; `ValueError` if it is not one that `key` signed.

    Exactly one line must be the log's. Lines of other keys (witnesses) are ignored, as C2SP
    signed-note demands, but must have the form of a signature.
    """
    text, separator, signatures = note.decode().rpartition("\n\n")
    lines = signatures.split("\n")
    if not separator or lines.pop() or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise ValueError("not a signed note")
    checkpoint = parse_text(text + "\n")
    if key.name not in {None, checkpoint.origin}:
        raise ValueError("the checkpoint is another log's")
    note_id = key.note_id(checkpoint.origin)
    ours: list[bytes] = []
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        if not match or not line.isprintable():
            raise ValueError("a signature line is malformed")
        signed = decode_base64(match[2])
        if match[1] == checkpoint.origin and signed[:4] == note_id:
            ours.append(signed[4:])
    if len(ours) != 1 or not key.verifies(ours[0], checkpoint.text().encode()):
        raise ValueError("the log's signature does not verify")
    return checkpoint
