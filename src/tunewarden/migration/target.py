"""The port of a migration's target server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class UploadGone(Exception):
    """An upload is closed without an existing file: begin another one."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a new file: ids of files of the target, and a description."""

    file_ids: Sequence[str]
    source: str


class Target(Protocol):
    """Stores sealed files. Each method raises Error with the server's message."""

    def has_file(self, file_id: str) -> bool:
        """Return whether a file still exists."""

    def stream(self, file_id: str, into: Callable[[bytes], object]) -> None:
        """Give a file's bytes to `into`, piece by piece."""

    def begin_upload(self, filename: str, purpose: str, size: int) -> str:
        """Begin an upload of at most `size` bytes; return its id. It expires after an hour."""

    def add_part(self, upload_id: str, size: int, read: Callable[[int], bytes]) -> str:
        """Add the `size` bytes that `read` returns, durably; return the part's id. Raises UploadGone."""

    def complete(self, upload_id: str, part_ids: Sequence[str], size: int, origin: Origin) -> str:
        """Make a file of parts that have `size` bytes; return its id, again if that was done before.

        Raises UploadGone.
        """
