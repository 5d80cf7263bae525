"""Sealing: a stream to an age blob and back, in bounded memory, plain bytes never on a disk. # I16.

The blobs are plain age v1 files (https://age-encryption.org/v1): the `age` tool opens them.
"""

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


class Readable(Protocol):
    """What can be sealed: a file, or bytes that come from elsewhere."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


class Digest(Protocol):
    """What takes the sealed bytes as well, such as `hashlib.sha256()`."""

    def update(self, data: bytes, /) -> object:
        """Take more bytes."""


def seal(
    reader: Readable, recipient: str, blobs: Blobs, name: str, *, digest: Digest | None = None
) -> int:
    """Seal all that `reader` yields to an age recipient, as the blob `name`; return its length.

    Durable when this returns. When the reader or the store fails, no blob is left and the failure
    goes on to the caller (an OSError as `Error` UNAVAILABLE). `digest` is given the sealed bytes.
    """
    with closing(_sealed(reader, x25519.Recipient.from_str(recipient), digest)) as chunks:
        return blobs.put(name, chunks)


def unseal(blobs: Blobs, name: str, identity: x25519.Identity, writer: BinaryIO) -> int:
    """Write the plain bytes of a blob to a seekable writer in memory; return their number.

    Raises `BlobErased`, or `Error` UNAVAILABLE when the blob is damaged, cut short, or sealed to
    another key. On any failure the writer is cut back to where it stood: age authenticates every
    64 KiB alone, and the beginning of a damaged file must not pass for the file.
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
    """Yield the plain bytes of a blob in order, in little memory, nothing of them on a disk.

    Raises as `unseal` does, also after it has yielded: what came is then the beginning of a damaged
    blob, and whoever took it must not pass it for the blob. Close the generator to end it early.
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
    """Write the plain bytes of a blob to a new file on tmpfs; return their number.

    Only the owner can read it. Raises as `unseal` does and then leaves no file; FileExistsError
    if there is one; ValueError for a path that is not on tmpfs, unless an operator whose machine has
    none accepted that (`scratch_may_be_a_disk`). # I16
    """
    if not may_be_a_disk and not is_volatile(path.parent):
        raise ValueError("plain weights may be written to tmpfs only")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            return unseal(blobs, name, identity, writer)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _sealed(
    reader: Readable, recipient: x25519.Recipient, digest: Digest | None
) -> Generator[bytes, None, None]:
    """Yield the age file, chunk by chunk.

    pyrage pushes what it sealed and the store pulls, so they run on two threads with a pipe
    between: it holds little, carries sealed bytes only, and breaks when either end gives up.
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
    """Seals a reader into a pipe. The file is whole only if `failure` is None once it has ended."""

    def __init__(self, reader: Readable, recipient: x25519.Recipient) -> None:
        super().__init__(name="sealer")
        self.output, self._input = _pipe()
        self._source = _Source(reader)
        self._recipient = recipient
        self.failure: BaseException | None = EOFError("sealing ended early")

    def run(self) -> None:
        # The pipe is closed last: its end is the end of the file to the other side.
        try:
            with os.fdopen(self._input, "wb", closefd=False) as writer:
                pyrage.encrypt_io(_as_stream(self._source), writer, [self._recipient])
            self.failure = None
        except (pyrage.EncryptError, OSError) as error:
            self.failure = self._source.failure or error
        finally:
            os.close(self._input)


class _Opener(threading.Thread):
    """Unseals a blob into a pipe, the other way round. What came is whole only without a `failure`."""

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
    """Return both ends of a pipe that takes a chunk in one piece, where the kernel allows it."""
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
        message = "What is stored is damaged, or sealed to another key. Bring it in again."
        raise Error(Kind.UNAVAILABLE, message, code="stored_bytes_damaged") from error


class _Source:
    """A reader that remembers its own failure: pyrage reports it as text, like a damaged file."""

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
    """A writer that remembers its own failure."""

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
    """Return the same object: pyrage calls `read`, or `write` and `flush`, and nothing else."""
    return cast("BufferedIOBase", part)
