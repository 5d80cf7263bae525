"""API keys for remote engines: one file per replica, mode 0600, never in the database or the log.

A replica never changes, so each worker reads its key once. The caller's own key is never forwarded.
"""

import os
import re
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.registry.replicas import FIRST

# Characters allowed after `Bearer` in a header (RFC 9110 §5.5, without blanks).
KEY = re.compile(r"[\x21-\x7e]{1,4096}")
FILE_BYTES_MAX = 8192


def read(directory: Path, base: str, replica: str) -> str | None:
    """Return the key of a replica, or None if it has none."""
    try:
        return path_of(directory, base, replica).read_text("ascii")
    except FileNotFoundError:
        return None


def has(directory: Path, base: str, replica: str) -> bool:
    """Return whether a replica has a key."""
    return path_of(directory, base, replica).exists()


def given(file: Path) -> str:
    """Read a key from the operator's file. Raises Error(INVALID)."""
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX).decode("ascii").strip()
    except OSError as error:
        raise Error(
            Kind.INVALID, f"{file} cannot be read: {error.strerror}.", param="engine_key_file"
        ) from error
    except UnicodeDecodeError:
        text = ""
    if not KEY.fullmatch(text):
        # Never quote the text: it may be most of a key.
        raise Error(
            Kind.INVALID,
            f"{file} must hold one API key: up to 4096 visible ASCII characters.",
            param="engine_key_file",
        )
    return text


def keep(directory: Path, base: str, replica: str, key: str | None) -> None:
    """Store the API key of a new replica durably; with None, delete the file of an earlier one."""
    path = path_of(directory, base, replica)
    if key is None:
        path.unlink(missing_ok=True)
        return
    directory.mkdir(mode=0o700, exist_ok=True)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(key)
        file.flush()
        os.fsync(descriptor)
    new.rename(path)
    for one in (directory, directory.parent):
        entry = os.open(one, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def path_of(directory: Path, base: str, replica: str) -> Path:
    """Return the path of a replica's key: `BASE.key` of the first one, `BASE@REPLICA.key` of others."""
    return directory / (f"{base}.key" if replica == FIRST else f"{base}@{replica}.key")
