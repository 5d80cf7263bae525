"""Sealing: a stream to an age blob and back, in bounded memory, plain bytes never on a disk. # I16.

The blobs are plain age v1 files (https://age-encryption.org/v1): the `age` tool opens them.
"""

import os
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO, cast

import pyrage
from pyrage import x25519

from tunewarden.artifacts.blobs import Blobs
from tunewarden.artifacts.disk import is_volatile
from tunewarden.errors import Error, Kind

_PIPE_BYTES = 256 * 1024


def seal(reader: BinaryIO, recipient: str, blobs: Blobs, name: str) -> int:
    """Seal all that `reader` yields to an age recipient, as the blob `name`; return its length.

    Durable when this returns. When the reader or the store fails, no blob is left and the failure
    goes on to the caller (an OSError as `Error` UNAVAILABLE).
    """
    with closing(_sealed(reader, x25519.Recipient.from_str(recipient))) as chunks:
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


def _sealed(reader: BinaryIO, recipient: x25519.Recipient) -> Generator[bytes, None, None]:
    """Yield the age file, chunk by chunk.

    pyrage pushes what it sealed and the store pulls, so they run on two threads with a pipe
    between: it holds little, carries sealed bytes only, and breaks when either end gives up.
    """
    sealer = _Sealer(reader, recipient)
    sealer.start()
    try:
        while chunk := os.read(sealer.output, _PIPE_BYTES):
            yield chunk
    finally:
        os.close(sealer.output)
        sealer.join()
    if sealer.failure is not None:
        raise sealer.failure


class _Sealer(threading.Thread):
    """Seals a reader into a pipe. The file is whole only if `failure` is None once it has ended."""

    def __init__(self, reader: BinaryIO, recipient: x25519.Recipient) -> None:
        super().__init__(name="sealer")
        self.output, self._input = os.pipe()
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


def _decrypt(sealed: BinaryIO, identity: x25519.Identity, writer: BinaryIO) -> None:
    source, sink = _Source(sealed), _Sink(writer)
    try:
        pyrage.decrypt_io(_as_stream(source), _as_stream(sink), [identity])
    except (pyrage.DecryptError, OSError) as error:
        failure = source.failure or sink.failure
        if failure is not None:
            raise failure from error
        message = (
            "The stored weights are damaged, or sealed to another key. Import the model again."
        )
        raise Error(Kind.UNAVAILABLE, message, code="stored_weights_damaged") from error


class _Source:
    """A reader that remembers its own failure: pyrage reports it as text, like a damaged file."""

    def __init__(self, reader: BinaryIO) -> None:
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
