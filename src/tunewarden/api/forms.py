"""Multipart forms, parsed without temporary files (I16): into anonymous memory (memfd), or as a stream.

Web frameworks spool uploads to temporary files. Here an imported model's files go to memfds, and a
file that may be large is passed on piece by piece, without buffering.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tunewarden.api.memory_budget import Held
from tunewarden.artifacts.strict_json import is_text
from tunewarden.errors import Error, Kind

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Enough for metadata of the largest size (registry/metadata.py) whose characters are all escaped, in 12 bytes each.
FIELD_BYTES_MAX = 128 * 1024
PARTS_MAX = 16
HEADER_BYTES_MAX = 8 * 1024
# Idle timeout: a client that sends nothing for this long is treated as gone.
SILENCE_SECONDS = 60.0
# Total timeout of a body: this long, plus a second for each so many bytes.
GRACE_SECONDS = 60.0
BODY_RATE_MIN = 16 * 1024
# Bytes allowed after the last boundary.
EPILOGUE_BYTES_MAX = 64 * 1024


class Form:
    """The fields and files of a form. Close it to free its memory."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.files: dict[str, BinaryIO] = {}

    def field(self, name: str, *, default: str | None = None) -> str:
        """Return a text field. Raises Error(INVALID) if it is missing and there is no default."""
        if name not in self.fields:
            if default is None:
                raise Error(Kind.INVALID, f"Missing required field '{name}'.", param=name)
            return default
        # Invalid UTF-8 was decoded to surrogates.
        value = self.fields[name].decode(errors="surrogateescape")
        if not is_text(value):
            raise Error(Kind.INVALID, f"Field '{name}' must be UTF-8 text without NUL.", param=name)
        return value

    def file(self, name: str) -> BinaryIO:
        """Return an uploaded file, rewound. Raises Error(INVALID) if it is missing."""
        if name not in self.files:
            raise missing_file(name)
        self.files[name].seek(0)
        return self.files[name]

    def close(self) -> None:
        """Free the memory."""
        for file in self.files.values():
            file.close()


def announced_bytes(request: Request) -> int:
    """Return the request's Content-Length; 0 if it has none."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdecimal() else 0


def check_announced(request: Request, file: str, bytes_max: int) -> None:
    """Return if the form may fit, before it is read. Raises Error(TOO_LARGE), naming `file`."""
    if announced_bytes(request) > bytes_max + FIELD_BYTES_MAX * PARTS_MAX:
        raise too_large(file)


async def read_form(
    request: Request,
    *,
    files: Sequence[str],
    fields: Sequence[str],
    file_bytes_max: int,
    held: Held,
) -> Form:
    """Parse a multipart form of these files and fields. Buffered bytes are charged to `held`.

    Raises Error(INVALID, TOO_LARGE, TOO_SLOW), and as `held` does.
    """
    reader = _ToMemory(files, fields, file_bytes_max, held)
    body = _Body(request, reader)
    try:
        while await body.parse_more():
            pass
    except BaseException:
        reader.form.close()
        raise
    return reader.form


class FileForm:
    """A form with one file, which is streamed; fields may precede and follow it."""

    def __init__(
        self, request: Request, *, file: str, fields: Sequence[str] = (), bytes_max: int
    ) -> None:
        check_announced(request, file, bytes_max)
        self._file = file
        self._reader = _ToStream(file, fields, bytes_max)
        self._body = _Body(request, self._reader)

    @property
    def form(self) -> Form:
        """The fields parsed so far; all of them once `pieces` has ended."""
        return self._reader.form

    @property
    def filename(self) -> str | None:
        """The file's name as sent by the client. Raises Error(INVALID) if it is not UTF-8."""
        name = self._reader.filename
        try:
            # Clients must percent-encode quotes in names (WHATWG HTML, 4.10.21.8).
            return None if name is None else name.decode().replace("%22", '"')
        except UnicodeDecodeError as error:
            raise Error(Kind.INVALID, "The file's name must be UTF-8.", param=self._file) from error

    async def begin(self) -> None:
        """Parse up to the file, so that the fields before it are known. Raises Error(INVALID)."""
        while not self._reader.has_begun:
            if not await self._body.parse_more():
                raise missing_file(self._file)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the file piece by piece, then parse the rest of the form. Raises Error(INVALID, TOO_LARGE)."""
        is_more = True
        while is_more:
            for piece in self._reader.taken():
                yield piece
            is_more = await self._body.parse_more()


def missing_file(name: str) -> Error:
    """Return the error for a form without its required file."""
    return Error(Kind.INVALID, f"Missing required file '{name}'.", param=name)


def too_large(name: str) -> Error:
    """Return the error for a part of a form that is over its limit."""
    return Error(Kind.TOO_LARGE, f"'{name[:100]}' is too large.", param=name[:100])


def _unknown(name: str) -> Error:
    shown = name[:100]
    message = f"Unrecognized request argument supplied: '{shown}'."
    return Error(Kind.INVALID, message, param=shown, code="unknown_parameter")


class _Body:
    """Feeds the body of a request to the parser."""

    def __init__(self, request: Request, reader: "_Reader") -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise Error(Kind.INVALID, "The body must be multipart/form-data.", param="content-type")
        self._receive = request.receive
        self._reader = reader
        self._parser: MultipartParser | None = None
        self._boundary = options[b"boundary"]
        self._is_read = False
        # Seconds waited for the client, and bytes received.
        self._waited = 0.0
        self._bytes = 0
        self._epilogue_bytes = 0

    async def parse_more(self) -> bool:
        """Parse the next piece; False at the end.

        Raises Error(INVALID), Error(TOO_SLOW), and the reader's errors.
        """
        if self._is_read:
            return False
        message = await self._wait()
        if message["type"] != "http.request":
            raise _broken_off()
        self._is_read = not message.get("more_body", False)
        piece = message.get("body", b"")
        self._bytes += len(piece)
        if self._reader.is_complete:
            self._epilogue_bytes += len(piece)
            if self._epilogue_bytes > EPILOGUE_BYTES_MAX:
                raise Error(Kind.INVALID, "Too much data after the multipart body's last boundary.")
        try:
            if self._parser is None:
                self._parser = MultipartParser(self._boundary, self._reader.callbacks())
            self._parser.write(piece)
        except ValueError as error:  # python_multipart's errors are ValueErrors
            raise Error(Kind.INVALID, "The multipart body is malformed.") from error
        if self._is_read:
            self._reader.check_complete()
        return True

    async def _wait(self) -> MutableMapping[str, Any]:
        """Return the next ASGI message. Only the time spent waiting here counts towards the client's timeout."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        left = GRACE_SECONDS + self._bytes / BODY_RATE_MIN - self._waited
        try:
            async with asyncio.timeout(min(SILENCE_SECONDS, left)):
                return await self._receive()
        except TimeoutError as error:
            raise Error(
                Kind.TOO_SLOW, "The request did not arrive in time.", code="request_timeout"
            ) from error
        finally:
            self._waited += loop.time() - began


def _broken_off() -> Error:
    return Error(Kind.INVALID, "The request ended before its body was complete.")


class _Reader:
    """The parser's callbacks, with a limit on every size and count."""

    def __init__(self, fields: Sequence[str], file_bytes_max: int) -> None:
        self.form = Form()
        self._fields = fields
        self.is_complete = False
        self._is_file = False
        self._seen: set[str] = set()
        self._file_bytes_max = file_bytes_max
        self._name = ""
        self._size = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    def begin_file(self, name: str, filename: bytes | None) -> bool:
        """Return whether a part is a file; if so, prepare to receive it."""
        raise NotImplementedError

    def add_to_file(self, name: str, data: memoryview) -> None:
        """Receive the next bytes of a file."""
        raise NotImplementedError

    def callbacks(self) -> "MultipartCallbacks":
        """Return the callbacks for the parser."""
        return {
            "on_part_begin": self.part_begin,
            "on_part_data": self.part_data,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_end": self.end,
        }

    def part_begin(self) -> None:
        if len(self._seen) == PARTS_MAX:
            raise Error(Kind.INVALID, f"Too many parts in the form (limit {PARTS_MAX}).")
        self._disposition = b""
        self._size = 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name = _bounded(self._header_name + data[start:end])

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value = _bounded(self._header_value + data[start:end])

    def header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self._seen:
            raise Error(
                Kind.INVALID, f"Field '{self._name[:100]}' is given twice.", param=self._name[:100]
            )
        self._seen.add(self._name)
        self._is_file = self.begin_file(self._name, options.get(b"filename"))
        if not self._is_file:
            if self._name not in self._fields:
                raise _unknown(self._name)
            self.form.fields[self._name] = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > (self._file_bytes_max if self._is_file else FIELD_BYTES_MAX):
            raise too_large(self._name)
        if self._is_file:
            self.add_to_file(self._name, memoryview(data)[start:end])
        else:
            self.form.fields[self._name] += data[start:end]

    def end(self) -> None:
        self.is_complete = True

    def check_complete(self) -> None:
        """Raise Error(INVALID) unless the last boundary was seen."""
        if not self.is_complete:
            raise Error(Kind.INVALID, "The multipart body ended before its last boundary.")


class _ToMemory(_Reader):
    """Keeps each file in anonymous memory."""

    def __init__(
        self, files: Sequence[str], fields: Sequence[str], file_bytes_max: int, held: Held
    ) -> None:
        super().__init__(fields, file_bytes_max)
        self._files = files
        self._held = held
        self._kept = 0

    def begin_file(self, name: str, filename: bytes | None) -> bool:
        if name not in self._files:
            return False
        descriptor = os.memfd_create("upload", os.MFD_CLOEXEC)
        self.form.files[name] = os.fdopen(descriptor, "w+b", buffering=0)
        return True

    def add_to_file(self, name: str, data: memoryview) -> None:
        self._kept += len(data)
        self._held.cover(self._kept)
        while data:
            data = data[self.form.files[name].write(data) :]


class _ToStream(_Reader):
    """Buffers the pieces of one file until `taken`: at most what one piece of the body holds."""

    def __init__(self, file: str, fields: Sequence[str], file_bytes_max: int) -> None:
        super().__init__(fields, file_bytes_max)
        self._file = file
        self._pieces: list[bytes] = []
        self.has_begun = False
        self.filename: bytes | None = None

    def begin_file(self, name: str, filename: bytes | None) -> bool:
        if name != self._file:
            return False
        self.has_begun = True
        self.filename = filename
        return True

    def add_to_file(self, name: str, data: memoryview) -> None:
        self._pieces.append(bytes(data))

    def taken(self) -> list[bytes]:
        """Return the pieces received since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces


def _bounded(header: bytes) -> bytes:
    if len(header) > HEADER_BYTES_MAX:
        raise Error(Kind.INVALID, "A part's header is too long.")
    return header
