"""Local files to upload: validated, then read again, in bounded memory."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.finetuning import datasets
from tunewarden.finetuning.datasets import InvalidDataset
from tunewarden.finetuning.hyperparameters import Method

CHUNK_BYTES = 1024 * 1024
# Short operations show no progress bar.
BAR_BYTES_MIN = 8 * 1024 * 1024


class LocalFile:
    """An open file, with its size when it was opened."""

    def __init__(self, name: str, descriptor: int, size: int) -> None:
        self.name = name
        self.size = size
        self._descriptor = descriptor
        self._left = size
        self._tell: Callable[[int], None] = lambda _: None

    def read(self, size: int) -> bytes:
        """Return the next bytes; none at the end. Raises Error(INVALID) if it has become shorter."""
        wanted = min(size, self._left)
        try:
            data = os.read(self._descriptor, wanted)
        except OSError as error:
            raise unreadable(self.name, error) from error
        if wanted and not data:
            raise shortened(self.name)
        self._left -= len(data)
        self._tell(len(data))
        return data

    @contextmanager
    def shown(self, what: str) -> Iterator[None]:
        """Rewind, and show a progress bar on a terminal while the block reads the file."""
        from rich import progress  # noqa: PLC0415  only where there is something to show
        from rich.console import Console  # noqa: PLC0415  likewise

        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._left = self.size
        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TimeRemainingColumn(),
        )
        is_shown = sys.stderr.isatty() and self.size >= BAR_BYTES_MIN
        bar = progress.Progress(
            *columns, console=Console(stderr=True), disable=not is_shown, transient=True
        )
        with bar:
            task = bar.add_task(f"{what} {self.name}", total=self.size)
            self._tell = lambda count: bar.advance(task, count)
            try:
                yield
            finally:
                self._tell = lambda _: None

    def check(self, method: Method, *, file: str) -> int:
        """Validate a `training` or `validation` file; return its number of examples. Raises Error(INVALID).

        A job validates it too; here errors are found before anything is uploaded.
        """
        with self.shown("Checking"):
            try:
                return datasets.check(self._chunks(), method, file=file).examples
            except InvalidDataset as invalid:
                # the job's message, without its first sentence
                why = invalid.message.rpartition("Invalid file format. ")[2]
                raise Error(
                    Kind.INVALID,
                    f"{self.name} cannot be used as {file} data. {why}. Nothing was uploaded.",
                    param="file",
                    code=invalid.code,
                ) from invalid

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def opened(path: Path) -> Iterator[LocalFile]:
    """Open a file for the duration of the block. Raises Error(INVALID)."""
    try:
        # O_NONBLOCK: opening a named pipe without a writer must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(str(path), error) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Error(Kind.INVALID, f"{path} is not a regular file.", param="file")
        yield LocalFile(path.name, descriptor, found.st_size)
    finally:
        os.close(descriptor)


def unreadable(name: str, error: OSError) -> Error:
    """Return the error for a file that cannot be read."""
    return Error(Kind.INVALID, f"{name} cannot be read: {error.strerror}.", param="file")


def shortened(name: str) -> Error:
    """Return the error for a file that was truncated after it was opened."""
    return Error(Kind.INVALID, f"{name} became shorter while it was read.", param="file")
