"""The keys that remote engines ask of us: one file a base, mode 0600, never in the database or the log.

A base never changes, so its key is read once by each worker. The caller's own key goes nowhere.
"""

import os
import re
from pathlib import Path

from tunewarden.errors import Error, Kind

# What may stand behind `Bearer` on one line of a request (RFC 9110 §5.5, without blanks).
KEY = re.compile(r"[\x21-\x7e]{1,4096}")
FILE_BYTES_MAX = 8192


def read(directory: Path, base: str) -> str | None:
    """Return the key of a base, or None if it has none."""
    try:
        return path_of(directory, base).read_text("ascii")
    except FileNotFoundError:
        return None


def has(directory: Path, base: str) -> bool:
    """Tell whether a base has a key."""
    return path_of(directory, base).exists()


def given(file: Path) -> str:
    """Return the key in a file of the operator's. Raises Error(INVALID)."""
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
        # Never the text itself: it may be most of a key.
        raise Error(
            Kind.INVALID,
            f"{file} must hold one API key: up to 4096 visible ASCII characters.",
            param="engine_key_file",
        )
    return text


def keep(directory: Path, base: str, key: str | None) -> None:
    """Keep the key of a new base, durably; without one, see that none is left of an earlier try."""
    path = path_of(directory, base)
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


def path_of(directory: Path, base: str) -> Path:
    """Return where the key of a base lies."""
    return directory / f"{base}.key"
