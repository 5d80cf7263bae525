"""The two doors of `doors.py`, for what commands do with files and fine-tuning jobs.

Beside a running server the local door is as safe as over HTTP: its runner sees new rows by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from tunewarden.api import fine_tuning_views, views
from tunewarden.app import App
from tunewarden.cli import doors, waiting
from tunewarden.cli.doors import HttpDoor, LocalDoor
from tunewarden.cli.local_files import LocalFile
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import checkpoints, creation, events, jobs, life
from tunewarden.ids import token
from tunewarden.registry import file_rules, files
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.file_rules import Description

# A larger file is sent in parts: a server takes no more than this (and a little) in one request.
SINGLE_BYTES_MAX = 512 * 1024 * 1024
PART_BYTES = 64 * 1024 * 1024
MIME_TYPE = "application/jsonl"
CHECKPOINTS_SHOWN = 1000

Shown = dict[str, Any]


class JobDoor(Protocol):
    """What commands can do with files and jobs; objects are as the API shows them."""

    def is_served(self) -> bool:
        """Tell whether a server is running, without which no job goes on."""

    def model(self, model_id: str) -> Shown:
        """Return a base or a model. Raises Error(NOT_FOUND)."""

    def upload(self, file: LocalFile, purpose: str) -> Shown:
        """Upload a file, which is read once, in pieces."""

    def files(self, purpose: str | None, limit: int) -> list[Shown]:
        """Return the newest files."""

    def file(self, file_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""

    def delete_file(self, file_id: str) -> str:
        """Delete a file; return the deletion's id."""

    def create(self, fields: Shown) -> Shown:
        """Create a job."""

    def jobs(self, limit: int) -> list[Shown]:
        """Return the newest jobs."""

    def job(self, job_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""

    def events(self, job_id: str, *, after: str | None, limit: int) -> Shown:
        """Return a page of events, newest first: those older than `after`."""

    def checkpoints(self, job_id: str) -> list[Shown]:
        """Return a job's checkpoints, newest first."""

    def cancel(self, job_id: str) -> Shown:
        """Cancel a job; return it."""

    def pause(self, job_id: str) -> Shown:
        """Pause a job; return it."""

    def resume(self, job_id: str) -> Shown:
        """Let a paused job go on; return it."""


@contextmanager
def opened(data: Path | None) -> Iterator[JobDoor]:
    """Open the door that the flags and the environment ask for. Raises Error."""
    with doors.opened(data) as door:
        if isinstance(door, HttpDoor):
            yield HttpJobs(door)
        else:
            assert isinstance(door, LocalDoor), "there are two"
            yield LocalJobs(door)


class LocalJobs:
    """The operations themselves, on a data directory of this machine."""

    def __init__(self, door: LocalDoor) -> None:
        self._door = door
        self._app: App = door.app
        self._database = door.app.database
        self._caller = door.caller
        self.model = door.model

    def is_served(self) -> bool:
        """Tell whether a server is running, without which no job goes on."""
        return waiting.door_to_running(self._app.config) is not None

    def upload(self, file: LocalFile, purpose: str) -> Shown:
        """Upload a file, which is read once, in pieces."""
        if file.size > self._app.config.upload_bytes_max:
            raise Error(Kind.TOO_LARGE, f"{file.name} is too large.", param="file")
        described = Description.checked(filename=file.name, purpose=purpose)
        return views.file_object(self._app.files.create(self._caller, file, lambda: described))

    def files(self, purpose: str | None, limit: int) -> list[Shown]:
        """Return the newest files."""
        pages = files.pages(self._database, self._caller, purpose=purpose)
        return [views.file_object(one) for one in islice(chain.from_iterable(pages), limit)]

    def file(self, file_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""
        found = files.find(self._database, self._caller, file_id)
        if found is None:
            raise files.missing(file_id)
        return views.file_object(found)

    def delete_file(self, file_id: str) -> str:
        """Delete a file; return the deletion's id."""
        executor = self._app.executor
        return executor.delete(self._caller, ArtifactKind.FILE, file_id, Attempt()).id

    def create(self, fields: Shown) -> Shown:
        """Create a job."""
        wanted = creation.parse(fields)
        return _job(creation.create(self._database, self._caller, wanted))

    def jobs(self, limit: int) -> list[Shown]:
        """Return the newest jobs."""
        return [
            _job(one) for one in jobs.page(self._database, self._caller, after=None, limit=limit)
        ]

    def job(self, job_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""
        return _job(jobs.retrieve(self._database, self._caller, job_id))

    def events(self, job_id: str, *, after: str | None, limit: int) -> Shown:
        """Return a page of events, newest first: those older than `after`."""
        found = events.page(self._database, self._caller, job_id, after=after, limit=limit + 1)
        shown = [fine_tuning_views.event_object(one) for one in found]
        return fine_tuning_views.listing(shown, limit)

    def checkpoints(self, job_id: str) -> list[Shown]:
        """Return a job's checkpoints, newest first."""
        found = checkpoints.page(
            self._database, self._caller, job_id, after=None, limit=CHECKPOINTS_SHOWN
        )
        return [fine_tuning_views.checkpoint_object(one, job_id) for one in found]

    def cancel(self, job_id: str) -> Shown:
        """Cancel a job; return it."""
        return _job(life.cancel(self._database, self._app.clock, self._caller, job_id))

    def pause(self, job_id: str) -> Shown:
        """Pause a job; return it."""
        return _job(life.pause(self._database, self._app.clock, self._caller, job_id))

    def resume(self, job_id: str) -> Shown:
        """Let a paused job go on; return it."""
        return _job(life.resume(self._database, self._caller, job_id))


class HttpJobs:
    """A server's API."""

    def __init__(self, door: HttpDoor) -> None:
        self._door = door
        self.model = door.model

    def is_served(self) -> bool:
        """Tell whether a server is running, without which no job goes on."""
        return True  # Whatever is asked next says so if it is not.

    def upload(self, file: LocalFile, purpose: str) -> Shown:
        """Upload a file in one request, or in parts if it is large; it is read once, in pieces."""
        file_rules.check_name(file.name, purpose)
        if file.size <= SINGLE_BYTES_MAX:
            return self._send("/files", "file", file.name, file.size, file.read, purpose=purpose)
        announced = {"filename": file.name, "purpose": purpose, "mime_type": MIME_TYPE}
        upload = self._door.post("/uploads", {**announced, "bytes": file.size})
        path = f"/uploads/{_quoted(upload['id'])}"
        try:
            parts: list[str] = []
            for start in range(0, file.size, PART_BYTES):
                size = min(PART_BYTES, file.size - start)
                part = self._send(f"{path}/parts", "data", file.name, size, file.read)
                parts.append(part["id"])
            made: Shown = self._door.post(f"{path}/complete", {"part_ids": parts})["file"]
        except BaseException:
            with suppress(Error):
                self._door.call("POST", f"{path}/cancel")
            raise
        return made

    def files(self, purpose: str | None, limit: int) -> list[Shown]:
        """Return the newest files."""
        chosen = {"limit": str(limit)} | ({"purpose": purpose} if purpose else {})
        return self._listed(f"/files?{urlencode(chosen)}")

    def file(self, file_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""
        return self._door.call("GET", f"/files/{_quoted(file_id)}")[0]

    def delete_file(self, file_id: str) -> str:
        """Delete a file; return the deletion's id."""
        return self._door.call("DELETE", f"/files/{_quoted(file_id)}")[1]

    def create(self, fields: Shown) -> Shown:
        """Create a job."""
        return self._door.post("/fine_tuning/jobs", fields)

    def jobs(self, limit: int) -> list[Shown]:
        """Return the newest jobs."""
        return self._listed(f"/fine_tuning/jobs?limit={limit}")

    def job(self, job_id: str) -> Shown:
        """Return one. Raises Error(NOT_FOUND)."""
        return self._door.call("GET", _path(job_id))[0]

    def events(self, job_id: str, *, after: str | None, limit: int) -> Shown:
        """Return a page of events, newest first: those older than `after`."""
        chosen = {"limit": str(limit)} | ({"after": after} if after else {})
        return self._door.call("GET", f"{_path(job_id)}/events?{urlencode(chosen)}")[0]

    def checkpoints(self, job_id: str) -> list[Shown]:
        """Return a job's checkpoints, newest first."""
        return self._listed(f"{_path(job_id)}/checkpoints?limit={CHECKPOINTS_SHOWN}")

    def cancel(self, job_id: str) -> Shown:
        """Cancel a job; return it."""
        return self._door.call("POST", f"{_path(job_id)}/cancel")[0]

    def pause(self, job_id: str) -> Shown:
        """Pause a job; return it."""
        return self._door.call("POST", f"{_path(job_id)}/pause")[0]

    def resume(self, job_id: str) -> Shown:
        """Let a paused job go on; return it."""
        return self._door.call("POST", f"{_path(job_id)}/resume")[0]

    def _listed(self, path: str) -> list[Shown]:
        listed: list[Shown] = self._door.call("GET", path)[0]["data"]
        return listed

    def _send(
        self,
        path: str,
        field: str,
        name: str,
        size: int,
        read: Callable[[int], bytes],
        **fields: str,
    ) -> Shown:
        """Send a form with one file of `size` bytes, as it is read."""
        boundary = token(40)
        head = b"".join(
            doors.part(boundary, key) + value.encode() + b"\r\n" for key, value in fields.items()
        )
        head += doors.part(boundary, field, file=name)
        tail = f"\r\n--{boundary}--\r\n".encode()

        def body() -> Iterator[bytes]:
            yield head
            left = size
            while left:
                data = read(min(left, doors.CHUNK_BYTES))
                left -= len(data)
                yield data
            yield tail

        return self._door.call(
            "POST",
            path,
            body(),
            f"multipart/form-data; boundary={boundary}",
            length=len(head) + size + len(tail),
        )[0]


def _job(named: jobs.NamedJob) -> Shown:
    return fine_tuning_views.job_object(named)


def _path(job_id: str) -> str:
    return f"/fine_tuning/jobs/{_quoted(job_id)}"


def _quoted(text: str) -> str:
    return quote(text, safe="")
