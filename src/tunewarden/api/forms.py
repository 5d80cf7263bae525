"""Multipart forms, read without a disk (I16): into anonymous memory, or as a stream while they come.

Web frameworks spool uploads into temporary files. Here a model's files go to memfds, and a file that
may be large is handed on piece by piece, with nothing kept of it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tunewarden.errors import Error, Kind

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_BYTES_MAX = 64 * 1024
PARTS_MAX = 16
HEADER_BYTES_MAX = 8 * 1024
# A client that sends nothing for so long has gone, whatever its connection says.
SILENCE_SECONDS = 60.0


class Form:
    """The fields and files of a form. Close it to give the memory back."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.files: dict[str, BinaryIO] = {}

    def field(self, name: str, *, default: str | None = None) -> str:
        """Return a text field. Raises Error(INVALID) if it is missing and there is no default."""
        if name not in self.fields:
            if default is None:
                raise Error(Kind.INVALID, f"Missing required field '{name}'.", param=name)
            return default
        try:
            return self.fields[name].decode()
        except UnicodeDecodeError as error:
            raise Error(Kind.INVALID, f"Field '{name}' must be UTF-8 text.", param=name) from error

    def file(self, name: str) -> BinaryIO:
        """Return an uploaded file, at its beginning. Raises Error(INVALID) if it is missing."""
        if name not in self.files:
            raise missing_file(name)
        self.files[name].seek(0)
        return self.files[name]

    def close(self) -> None:
        """Give the memory back."""
        for file in self.files.values():
            file.close()


async def read_form(request: Request, *, files: Sequence[str], file_bytes_max: int) -> Form:
    """Read a multipart form as it comes; only `files` may be files. Raises Error(INVALID, TOO_LARGE)."""
    reader = _ToMemory(files, file_bytes_max)
    body = _Body(request, reader)
    try:
        while await body.parse_more():
            pass
    except BaseException:
        reader.form.close()
        raise
    return reader.form


class FileForm:
    """A form with one file in it, which is handed on while it comes; fields may stand around it."""

    def __init__(self, request: Request, *, file: str, bytes_max: int) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > bytes_max + FIELD_BYTES_MAX * PARTS_MAX:
            raise too_large(file)
        self._file = file
        self._reader = _ToStream(file, bytes_max)
        self._body = _Body(request, self._reader)

    @property
    def form(self) -> Form:
        """The fields that have come so far: all of them, once `pieces` has ended."""
        return self._reader.form

    @property
    def filename(self) -> str | None:
        """What the client calls the file. Raises Error(INVALID) if that is not UTF-8."""
        name = self._reader.filename
        try:
            # A quote is the one character that clients have to write otherwise (WHATWG HTML, 4.10.21.8).
            return None if name is None else name.decode().replace("%22", '"')
        except UnicodeDecodeError as error:
            raise Error(Kind.INVALID, "The file's name must be UTF-8.", param=self._file) from error

    async def begin(self) -> None:
        """Read until the file begins: the fields before it are then known. Raises Error(INVALID)."""
        while not self._reader.has_begun:
            if not await self._body.parse_more():
                raise missing_file(self._file)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the file as it comes, and read the form to its end. Raises Error(INVALID, TOO_LARGE)."""
        is_more = True
        while is_more:
            for piece in self._reader.taken():
                yield piece
            is_more = await self._body.parse_more()


def missing_file(name: str) -> Error:
    """Return the error for a form without the file that it must have."""
    return Error(Kind.INVALID, f"Missing required file '{name}'.", param=name)


def too_large(name: str) -> Error:
    """Return the error for a part of a form that is larger than it may be."""
    return Error(Kind.TOO_LARGE, f"'{name[:100]}' is too large.", param=name[:100])


class _Body:
    """The body of a request on its way through the parser."""

    def __init__(self, request: Request, reader: "_Reader") -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise Error(Kind.INVALID, "The body must be multipart/form-data.", param="content-type")
        self._receive = request.receive
        self._reader = reader
        self._parser: MultipartParser | None = None
        self._boundary = options[b"boundary"]
        self._is_read = False

    async def parse_more(self) -> bool:
        """Parse the next piece; False if there is none. Raises Error(INVALID), and what the reader does."""
        if self._is_read:
            return False
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await self._receive()
        except TimeoutError as error:
            raise _broken_off() from error
        if message["type"] != "http.request":
            raise _broken_off()
        self._is_read = not message.get("more_body", False)
        try:
            if self._parser is None:
                self._parser = MultipartParser(self._boundary, self._reader.callbacks())
            self._parser.write(message.get("body", b""))
        except ValueError as error:  # python_multipart's errors are ValueErrors
            raise Error(Kind.INVALID, "The multipart body is malformed.") from error
        if self._is_read:
            self._reader.check_complete()
        return True


def _broken_off() -> Error:
    return Error(Kind.INVALID, "The request ended before its body was complete.")


class _Reader:
    """The parser's callbacks, bounded in every direction."""

    def __init__(self, file_bytes_max: int) -> None:
        self.form = Form()
        self._is_complete = False
        self._is_file = False
        self._seen: set[str] = set()
        self._file_bytes_max = file_bytes_max
        self._name = ""
        self._size = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    def begin_file(self, name: str, filename: bytes | None) -> bool:
        """Tell whether a part is a file, and if so, be ready for it."""
        raise NotImplementedError

    def add_to_file(self, name: str, data: memoryview) -> None:
        """Take the next bytes of a file."""
        raise NotImplementedError

    def callbacks(self) -> "MultipartCallbacks":
        """Return what the parser calls."""
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
            raise Error(Kind.INVALID, f"A form may have {PARTS_MAX} parts.")
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
        self._is_complete = True

    def check_complete(self) -> None:
        """Raise Error(INVALID) unless the last boundary was seen."""
        if not self._is_complete:
            raise Error(Kind.INVALID, "The multipart body ended before its last boundary.")


class _ToMemory(_Reader):
    """Keeps each file in anonymous memory."""

    def __init__(self, files: Sequence[str], file_bytes_max: int) -> None:
        super().__init__(file_bytes_max)
        self._files = files

    def begin_file(self, name: str, filename: bytes | None) -> bool:
        if name not in self._files:
            return False
        descriptor = os.memfd_create("upload", os.MFD_CLOEXEC)
        self.form.files[name] = os.fdopen(descriptor, "w+b", buffering=0)
        return True

    def add_to_file(self, name: str, data: memoryview) -> None:
        while data:
            data = data[self.form.files[name].write(data) :]


class _ToStream(_Reader):
    """Keeps the pieces of one file until they are taken: no more than one piece of the body has."""

    def __init__(self, file: str, file_bytes_max: int) -> None:
        super().__init__(file_bytes_max)
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
        """Return what has come since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces


def _bounded(header: bytes) -> bytes:
    if len(header) > HEADER_BYTES_MAX:
        raise Error(Kind.INVALID, "A part's header is too long.")
    return header
