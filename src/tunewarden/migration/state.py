"""The state directory of a migration: its progress, as JSON, so that a command can resume after a kill.

It holds ids, digests and counts, and no byte of training data, prompts or answers: those are sealed files of the
target. A file is replaced as a whole and durably, so that it is never half written.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunewarden import locks
from tunewarden.errors import Error, Kind

VERSION = 1
SOURCE = "source"
TARGET = "target"
LOCK = "lock"
Object = dict[str, Any]


class State:
    """The files of one state directory, locked by this process."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self._url = url

    def read(self, name: str) -> Object | None:
        """Return what was written under a name, or None. Raises Error(INVALID) for another format."""
        try:
            found = json.loads(self._path(name).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(name) from error
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise self._unreadable(name)
        return found

    def all(self, prefix: str) -> list[Object]:
        """Return what was written under names that begin so. Raises Error(INVALID) for another format."""
        names = sorted(path.stem for path in self.directory.glob(f"{prefix}*.json"))
        return [found for name in names if (found := self.read(name)) is not None]

    def write(self, name: str, content: Object, *, indent: int | None = None) -> Path:
        """Replace what a name has, durably; return the file. The first one binds the directory to its source.

        Raises Error(UNAVAILABLE) where it cannot be written: the disk is full, say.
        """
        if name != SOURCE and self.read(SOURCE) is None:
            self.write(SOURCE, {"url": self._url})
        path = self._path(name)
        fresh = path.with_suffix(".new")
        try:
            text = json.dumps({"version": VERSION, **content}, indent=indent)
            self._replace(path, fresh, text.encode() + b"\n")
        except OSError as error:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise Error(Kind.UNAVAILABLE, f"{path} cannot be written: {error.strerror}.") from error
        return path

    def _replace(self, path: Path, fresh: Path, content: bytes) -> None:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
        directory = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def check(self) -> None:
        """Return if the state is not of another source. Raises Error(CONFLICT)."""
        known = self.read(SOURCE)
        if known is not None and known.get("url") != self._url:
            raise Error(
                Kind.CONFLICT,
                f"{self.directory} has the state of {known.get('url')}. Use another directory for {self._url}.",
            )

    def is_target(self, name: str) -> bool:
        """Return whether a target's name is that of the steps before, False if none is noted. Raises Error(CONFLICT)."""
        known = (self.read(TARGET) or {}).get("log")
        if known in {None, name}:
            return known is not None
        raise Error(
            Kind.CONFLICT,
            f"{self.directory} has the state of a migration to another Tunewarden server, whose log is {known}; the"
            f" log of this one is {name}. Give that server's address or data directory, or begin anew here with"
            " another --state.",
        )

    def note_target(self, name: str) -> None:
        """Bind the directory to a target."""
        self.write(TARGET, {"log": name})

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _unreadable(self, name: str) -> Error:
        return Error(Kind.INVALID, f"{self._path(name)} cannot be read, or is not of this version.")


def known_url(directory: Path) -> str:
    """Return the address of the source whose state a directory has. Raises Error(CONFLICT) if it has none."""
    known = State(directory, "").read(SOURCE)
    if known is None:
        raise Error(
            Kind.CONFLICT,
            f"{directory} has no migration: run `migrate openai inventory` first, or give --state.",
        )
    return str(known.get("url"))


@contextmanager
def opened(directory: Path, url: str) -> Iterator[State]:
    """Open a source's state for the duration of the block; create the directory if missing.

    Raises Error(CONFLICT) while another command uses it, or if it is another source's; Error(INVALID) if it cannot
    be used.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = locks.try_take(directory / LOCK)
    except OSError as error:
        raise Error(Kind.INVALID, f"{directory} cannot be used: {error.strerror}.") from error
    if held is None:
        raise Error(Kind.CONFLICT, f"Another command is using {directory}.")
    try:
        state = State(directory, url)
        state.check()
        yield state
    finally:
        locks.give_back(held)
