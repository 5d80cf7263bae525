"""The migration's target, through the commands' client."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tunewarden.cli import forms
from tunewarden.cli.client import Client
from tunewarden.cli.transport import Request
from tunewarden.errors import Error, Kind
from tunewarden.migration.target import Origin, UploadGone

MIME_TYPE = "application/jsonl"
# A killed command may have succeeded: then this is a retry.
REPEATED = {"x-stainless-retry-count": "1"}
NOT_PENDING = "upload_not_pending"
# Parts whose answers were lost have filled it, which no retry changes.
TOO_LARGE = "upload_too_large"


class HttpTarget:
    """A `migration.target.Target`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def has_file(self, file_id: str) -> bool:
        """Return whether a file still exists."""
        try:
            self._client.get("files", file_id)
        except Error as error:
            if error.kind is Kind.NOT_FOUND:
                return False
            raise
        return True

    def stream(self, file_id: str, into: Callable[[bytes], object]) -> None:
        """Give a file's bytes to `into`, piece by piece."""
        self._client.stream("files", file_id, "content", into=into)

    def begin_upload(self, filename: str, purpose: str, size: int) -> str:
        """Begin an upload of at most `size` bytes; return its id."""
        announced = {"filename": filename, "purpose": purpose, "mime_type": MIME_TYPE}
        return str(self._client.post("uploads", fields={**announced, "bytes": size})["id"])

    def add_part(self, upload_id: str, size: int, read: Callable[[int], bytes]) -> str:
        """Add the `size` bytes that `read` returns; return the part's id. Raises UploadGone."""
        try:
            with _said_if_gone():
                return forms.add_part(self._client, upload_id, "part", size, read)
        except Error as error:
            if error.code != TOO_LARGE:
                raise
            with suppress(Error):
                self._client.post("uploads", upload_id, "cancel")
            raise UploadGone from error

    def complete(self, upload_id: str, part_ids: Sequence[str], size: int, origin: Origin) -> str:
        """Make a file of parts; return its id, again if that was done before. Raises UploadGone."""
        fields = {
            "part_ids": list(part_ids),
            "bytes": size,
            "derived_from": list(origin.file_ids),
            "source": origin.source,
        }
        body = json.dumps(fields).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **REPEATED,
        }
        path = f"/uploads/{upload_id}/complete"
        with _said_if_gone():
            answer = self._client.exchange(Request("POST", path, headers, [body]))
        file = json.loads(answer.body)["file"]
        if file is None:  # deleted in the meantime
            raise UploadGone
        return str(file["id"])


@contextmanager
def _said_if_gone() -> Iterator[None]:
    try:
        yield
    except Error as error:
        # An upload of another server is unknown to this one.
        if error.code == NOT_PENDING or (
            error.kind is Kind.NOT_FOUND and error.param == "upload_id"
        ):
            raise UploadGone from error
        raise
