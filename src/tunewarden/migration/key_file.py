"""The source's API key: read from a file that nobody else can read, never from the command line."""

import os
import stat
from pathlib import Path

from tunewarden.errors import Error, Kind

KEY_BYTES_MAX = 4096


def read(path: Path) -> str:
    """Return the key in a file. Raises Error(INVALID), and Error(FORBIDDEN) if others can read it."""
    try:
        # Not blocking: a named pipe without a writer is refused at once.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Error(Kind.INVALID, f"{path} cannot be read: {error.strerror}.") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Error(Kind.INVALID, f"{path} is not a regular file.")
        if found.st_mode & 0o077:
            raise Error(
                Kind.FORBIDDEN,
                f"{path} can be read by others. Make it yours alone first: chmod 600 {path}",
            )
        content = os.read(descriptor, KEY_BYTES_MAX)
    finally:
        os.close(descriptor)
    key = content.decode("ascii", errors="replace").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise Error(Kind.INVALID, f"{path} must hold the source's API key and nothing else.")
    return key
