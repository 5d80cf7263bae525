"""Sealing: streaming age encryption of blobs and back, in bounded memory, plaintext never on a disk. # I16.

The blobs are plain age v1 files (https://age-encryption.org/v1): the `age` tool opens them.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyrage
from pyrage import x25519

from tunewarden.artifacts.blobs import Blobs
from tunewarden.artifacts.disk import is_volatile
from tunewarden.errors import Error, Kind

_PIPE_BYTES = 256 * 1024
_AGE_CHUNK_BYTES = 64 * 1024
# For one recipient; pyrage adds a meaningless stanza of random length (grease).
_HEADER_BYTES_MAX = 1024


class Readable(Protocol):
    """A source of plaintext: a file or a stream."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; b"" at the end."""


class Digest(Protocol):
    """Receives a copy of the ciphertext, such as `hashlib.sha256()`."""

    def update(self, data: bytes, /) -> object:
        """Add bytes."""


def seal(
    reader: Readable, recipient: str, blobs: Blobs, name: str, *, digest: Digest | None = None
) -> int:
    """Encrypt `reader` to an age recipient as the blob `name`; return its length.

    Durable when this returns. If the reader or the store fails, no blob is left and the error
    propagates (an OSError as Error(UNAVAILABLE)). `digest` receives the ciphertext.
    """
    with closing(_sealed(reader, x25519.Recipient.from_str(recipient), digest)) as chunks:
        return blobs.put(name, chunks)


def sealed_bytes(size: int) -> int:
    """Return the blob length for `size` plaintext bytes: a header, a nonce, and 16 bytes per 64 KiB."""
    return size + _HEADER_BYTES_MAX + 16 * (size // _AGE_CHUNK_BYTES + 1)


def unseal(blobs: Blobs, name: str, identity: x25519.Identity, writer: BinaryIO) -> int:
    """Decrypt a blob to a seekable in-memory writer; return the plaintext's length.

    Raises `BlobErased`, or Error(UNAVAILABLE) if the blob is damaged, truncated, or sealed to
    another key. On failure the writer is truncated to its old length: age authenticates every
    64 KiB separately, and the beginning of a damaged file must not pass for the file.
    """
    start = writer.tell()
    try:
        with blobs.open(name) as sealed:
            _decrypt(sealed, identity, writer)
        return writer.tell() - start
    except BaseException:
        writer.seek(start)
        writer.truncate()
        raise


def unsealed(blobs: Blobs, name: str, identity: x25519.Identity) -> Generator[bytes, None, None]:
    """Decrypt a blob as a stream, in bounded memory, without touching a disk.

    Raises like `unseal`, possibly after yielding: the bytes so far are then the beginning of a damaged
    blob, and must not be used as the blob. Close the generator to end it early.
    """
    with blobs.open(name) as sealed:
        opener = _Opener(sealed, identity)
        opener.start()
        try:
            while chunk := os.read(opener.output, _PIPE_BYTES):
                yield chunk
        finally:
            os.close(opener.output)
            opener.join()
    if opener.failure is not None:
        raise opener.failure


def unseal_to_file(
    blobs: Blobs, name: str, identity: x25519.Identity, path: Path, *, may_be_a_disk: bool = False
) -> int:
    """Decrypt a blob to a new file on tmpfs (mode 0600); return its length.

    Raises like `unseal`, and Error(UNAVAILABLE) if the tmpfs is full, and then leaves no file; FileExistsError
    if the file exists; ValueError for a path that is not on tmpfs, unless the operator
    accepted that (`scratch_may_be_a_disk`). # I16
    """
    if not may_be_a_disk and not is_volatile(path.parent):
        raise ValueError("plain weights may be written to tmpfs only")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            return unseal(blobs, name, identity, writer)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _scratch_is_full() from error
        raise


def _scratch_is_full() -> Error:
    """Return the error for a tmpfs without room; other loads may leave it at any moment."""
    message = (
        "The server has no room in memory for these weights: its scratch directory is full. Try again, or"
        " ask the operator for a larger one (TUNEWARDEN_SCRATCH; in a container, the size of /dev/shm)."
    )
    return Error(Kind.UNAVAILABLE, message, code="scratch_full", retry_after_seconds=1)


def _sealed(
    reader: Readable, recipient: x25519.Recipient, digest: Digest | None
) -> Generator[bytes, None, None]:
    """Yield the age file in chunks.

    pyrage pushes ciphertext and the store pulls it, so they run on two threads with a pipe
    in between, which holds little, carries ciphertext only, and breaks when either end fails.
    """
    sealer = _Sealer(reader, recipient)
    sealer.start()
    try:
        while chunk := os.read(sealer.output, _PIPE_BYTES):
            if digest is not None:
                digest.update(chunk)
            yield chunk
    finally:
        os.close(sealer.output)
        sealer.join()
    if sealer.failure is not None:
        raise sealer.failure


class _Sealer(threading.Thread):
    """Encrypts a reader into a pipe. The file is complete only if `failure` is None at the end."""

    def __init__(self, reader: Readable, recipient: x25519.Recipient) -> None:
        super().__init__(name="sealer")
        self.output, self._input = _pipe()
        self._source = _Source(reader)
        self._recipient = recipient
        self.failure: BaseException | None = EOFError("sealing ended early")

    def run(self) -> None:
        # Close the pipe last: the reader sees it as the end of the file.
        try:
            with os.fdopen(self._input, "wb", closefd=False) as writer:
                pyrage.encrypt_io(_as_stream(self._source), writer, [self._recipient])
            self.failure = None
        except (pyrage.EncryptError, OSError) as error:
            self.failure = self._source.failure or error
        finally:
            os.close(self._input)


class _Opener(threading.Thread):
    """Decrypts a blob into a pipe. The plaintext is complete only if `failure` is None at the end."""

    def __init__(self, sealed: BinaryIO, identity: x25519.Identity) -> None:
        super().__init__(name="opener")
        self.output, self._input = _pipe()
        self._sealed = sealed
        self._identity = identity
        self.failure: BaseException | None = EOFError("unsealing ended early")

    def run(self) -> None:
        try:
            # pyrage writes 8 KiB at a time.
            with os.fdopen(self._input, "wb", buffering=_PIPE_BYTES, closefd=False) as writer:
                _decrypt(self._sealed, self._identity, writer)
            self.failure = None
        except (Error, OSError) as error:
            self.failure = error
        finally:
            os.close(self._input)


def _pipe() -> tuple[int, int]:
    """Return both ends of a pipe with room for a whole chunk, if the kernel allows it."""
    output, into = os.pipe()
    with suppress(OSError):
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return output, into


def _decrypt(sealed: BinaryIO, identity: x25519.Identity, writer: BinaryIO) -> None:
    source, sink = _Source(sealed), _Sink(writer)
    try:
        pyrage.decrypt_io(_as_stream(source), _as_stream(sink), [identity])
    except (pyrage.DecryptError, OSError) as error:
        failure = source.failure or sink.failure
        if failure is not None:
            raise failure from error
        message = "The stored data is damaged, or sealed to another key. Import or upload it again."
        raise Error(Kind.UNAVAILABLE, message, code="stored_bytes_damaged") from error


class _Source:
    """A reader that keeps its own exception: pyrage would report it as text, like a damaged file."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.failure: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except BaseException as error:
            self.failure = error
            raise


class _Sink:
    """A writer that keeps its own exception."""

    def __init__(self, writer: BinaryIO) -> None:
        self._writer = writer
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._writer.write(data)
        except BaseException as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self._writer.flush()


def _as_stream(part: _Source | _Sink) -> BufferedIOBase:
    """Cast for pyrage, which calls only `read`, or `write` and `flush`."""
    return cast("BufferedIOBase", part)
