"""The ports of a migration's target server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Object = dict[str, Any]


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


class Trainer(Protocol):
    """Trains models. Each method raises Error with the server's message."""

    def knows(self, model: str) -> bool:
        """Return whether there is a base or a model of this name."""

    def jobs_of(self, source_job: str) -> list[Object]:
        """Return the jobs whose metadata name a job of the source, the newest first."""

    def make_job(self, fields: Object, request_key: str) -> Object:
        """Create a job, or return the one that a request with this key created."""

    def job(self, job_id: str) -> Object:
        """Return a job."""

    def describe(self, model: str, metadata: Mapping[str, str]) -> None:
        """Add to a model's metadata."""


class Aliases(Protocol):
    """Stable names of models. Each method raises Error with the server's message."""

    def find(self, name: str) -> Object | None:
        """Return an alias with its history, or None."""

    def set(self, name: str, model: str, *, is_new: bool) -> Object:
        """Create an alias, or point it to another model."""

    def roll_back(self, name: str, version: int) -> Object:
        """Point an alias to what an earlier version pointed to."""

    def delete(self, name: str) -> None:
        """Delete an alias."""
