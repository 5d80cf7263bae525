"""Multipart forms read into anonymous memory: an uploaded file never touches a disk (I16).

Web frameworks spool uploads into temporary files; here each file goes to a memfd as it comes.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from tunewarden.errors import Error, Kind

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD_BYTES_MAX = 64 * 1024
PARTS_MAX = 16
HEADER_BYTES_MAX = 8 * 1024


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
            raise Error(Kind.INVALID, f"Missing required file '{name}'.", param=name)
        self.files[name].seek(0)
        return self.files[name]

    def close(self) -> None:
        """Give the memory back."""
        for file in self.files.values():
            file.close()


async def read_form(request: Request, *, files: Sequence[str], file_bytes_max: int) -> Form:
    """Read a multipart form as it comes; only `files` may be files. Raises Error(INVALID, TOO_LARGE)."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Error(Kind.INVALID, "The body must be multipart/form-data.", param="content-type")
    reader = _Reader(files, file_bytes_max)
    try:
        parser = MultipartParser(options[b"boundary"], callbacks=reader.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        reader.check_complete()
    except ValueError as error:  # python_multipart's errors are ValueErrors
        reader.form.close()
        raise Error(Kind.INVALID, "The multipart body is malformed.") from error
    except ClientDisconnect as error:
        reader.form.close()
        raise Error(Kind.INVALID, "The request ended before its body was complete.") from error
    except BaseException:
        reader.form.close()
        raise
    return reader.form


class _Reader:
    """The parser's callbacks, bounded in every direction."""

    def __init__(self, files: Sequence[str], file_bytes_max: int) -> None:
        self.form = Form()
        self._is_complete = False
        self._files = files
        self._file_bytes_max = file_bytes_max
        self._parts = 0
        self._name = ""
        self._size = 0
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

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
        self._parts += 1
        if self._parts > PARTS_MAX:
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
        if self._name in self.form.fields or self._name in self.form.files:
            raise Error(
                Kind.INVALID, f"Field '{self._name[:100]}' is given twice.", param=self._name[:100]
            )
        if self._name in self._files:
            descriptor = os.memfd_create("upload", os.MFD_CLOEXEC)
            self.form.files[self._name] = os.fdopen(descriptor, "w+b", buffering=0)
        else:
            self.form.fields[self._name] = b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        file = self.form.files.get(self._name)
        if self._size > (FIELD_BYTES_MAX if file is None else self._file_bytes_max):
            raise Error(
                Kind.TOO_LARGE, f"'{self._name[:100]}' is too large.", param=self._name[:100]
            )
        if file is None:
            self.form.fields[self._name] += data[start:end]
        else:
            view = memoryview(data)[start:end]
            while view:
                view = view[file.write(view) :]

    def end(self) -> None:
        self._is_complete = True

    def check_complete(self) -> None:
        """Raise Error(INVALID) unless the last boundary was seen."""
        if not self._is_complete:
            raise Error(Kind.INVALID, "The multipart body ended before its last boundary.")


def _bounded(header: bytes) -> bytes:
    if len(header) > HEADER_BYTES_MAX:
        raise Error(Kind.INVALID, "A part's header is too long.")
    return header
