"""Streams a file from the source; a broken download is resumed at its offset.

Where the source does not serve ranges, it is read from the beginning again, and what was read before must be the same.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse

from tunewarden.errors import Error, Kind
from tunewarden.migration.source import Object, Reply, Source
from tunewarden.migration.waiting import Patience, is_retried

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A completely read part of a file."""

    bytes: int
    sha256: str

    def as_json(self) -> Object:
        """Return it in the state's form."""
        return asdict(self)


class Content:
    """One file of `size` bytes, from behind the parts that are known. Close it."""

    def __init__(self, source: Source, file_id: str, size: int, known: Sequence[Part]) -> None:
        self.size = size
        self._source = source
        self._file_id = file_id
        self._parts = list(known)
        self._at = sum(part.bytes for part in known)
        self._whole = None if known else hashlib.sha256()
        self._digest = hashlib.sha256()  # of the part that is being read
        self._in_part = 0
        self._patience = Patience(source.pauses)
        self._open: tuple[HTTPConnection, HTTPResponse] | None = None

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end.

        Raises Error(NOT_FOUND), Error(CONFLICT) if the file has changed, and as `Source.ask` does.
        """
        wanted = min(size, self.size - self._at)
        while wanted:
            try:
                data = self._response().read(wanted)
                if not data:
                    raise ConnectionResetError
            except (OSError, HTTPException):
                self.close()
                self._patience.wait(f"The source broke off {self._file_id}")
                continue
            self._patience = Patience(self._source.pauses)
            self._at += len(data)
            self._in_part += len(data)
            self._digest.update(data)
            if self._whole is not None:
                self._whole.update(data)
            return data
        return b""

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, which the file has. Raises what `read` does."""
        taken = bytearray()
        while len(taken) < size:
            taken += self.read(size - len(taken))
        return bytes(taken)

    def end_part(self) -> Part:
        """Return what was read since the last part as a part."""
        part = Part(self._in_part, self._digest.hexdigest())
        self._parts.append(part)
        self._digest, self._in_part = hashlib.sha256(), 0
        return part

    def end(self) -> str | None:
        """Return the SHA-256 of all of it; None if its beginning was read by an earlier command.

        Raises Error(CONFLICT) if the source goes on behind the size that the inventory says.
        """
        with suppress(OSError, HTTPException):
            if self._open is not None and self._open[1].read(1):
                raise self._changed()
        return None if self._whole is None else self._whole.hexdigest()

    def close(self) -> None:
        """Close the connection."""
        if self._open is not None:
            self._open[0].close()
            self._open = None

    def _response(self) -> HTTPResponse:
        """Return the answer, at the place that is read next. Raises OSError, HTTPException, Error."""
        while self._open is None:
            self._source.pauses.wait()
            headers = {"range": f"bytes={self._at}-"} if self._at else {}
            path = ("files", self._file_id, "content")
            connection, response = self._source.begin("GET", path, {}, headers)
            self._open = connection, response
            if response.status in {200, 206}:
                self._check(response)
                return response
            headers_back = {name.lower(): value for name, value in response.getheaders()}
            reply = Reply(response.status, headers_back, response.read(CHUNK_BYTES))
            self.close()
            if not is_retried(reply.status):
                raise self._changed() if reply.status == 416 else self._source.refused(reply)
            self._source.wait_or_refuse(reply, self._patience)
        return self._open[1]

    def _check(self, response: HTTPResponse) -> None:
        """Check that the response is of the same file, at the right offset. Raises Error(CONFLICT)."""
        if response.status == 206:
            place = response.headers.get("content-range", "")
            if not (place.startswith(f"bytes {self._at}-") and place.endswith(f"/{self.size}")):
                raise self._changed()
            return
        length = response.headers.get("content-length")
        if length is not None and length != str(self.size):
            raise self._changed()
        if self._at:
            for part in [*self._parts, Part(self._in_part, self._digest.hexdigest())]:
                if self._read_again(response, part.bytes) != part.sha256:
                    raise self._changed()

    def _read_again(self, response: HTTPResponse, size: int) -> str:
        digest = hashlib.sha256()
        while size:
            data = response.read(min(size, CHUNK_BYTES))
            if not data:
                raise ConnectionResetError
            digest.update(data)
            size -= len(data)
        return digest.hexdigest()

    def _changed(self) -> Error:
        return Error(
            Kind.CONFLICT,
            f"{self._file_id} is not at the source what it was when it was begun, or what the inventory says.",
        )
