"""Types of the search in files, for the OpenAPI document: its body, and the lines of its response. See `schemas`."""

from typing import Literal

from msgspec import Struct


class FileSearch(Struct, forbid_unknown_fields=True):
    """Texts to look for in every file of the organization. `after` is a file's id: the search goes on after it.

    Files are read as UTF-8, Latin-1 (Windows-1252) or UTF-16: as they are written, with JSON's escapes resolved twice,
    and with HTML's character references, percent-encoding and JSON's escapes resolved three times. Other encodings,
    base64 and compressed content are not searched.
    """

    texts: list[str]
    after: str | None = None


class SearchMatch(Struct, forbid_unknown_fields=True):
    """A file and a line of it in which text `text` of the request begins, counted from 1; `line` is null for its name.

    `reading`: the text stands there `as_written`; or only with the escapes of `json` or of the `web` resolved.
    """

    object: Literal["file.search.match"]
    file: str
    filename: str
    project: str
    text: int
    line: int | None
    reading: Literal["as_written", "json", "web"]


class SearchedFile(Struct, forbid_unknown_fields=True):
    """A file that could not be read to its end, or has more lines than were named for a text (`has_more`)."""

    object: Literal["file.search.incomplete"]
    file: str
    project: str
    code: str


class SearchProgress(Struct, forbid_unknown_fields=True):
    """How far a search has come: files and bytes of those that it began with."""

    object: Literal["file.search.progress"]
    files: int
    of_files: int
    bytes: int
    of_bytes: int


class SearchSummary(Struct, forbid_unknown_fields=True):
    """The last line. Not `is_complete`: continue with `after`. Without this line the search was cut off.

    It is complete when every file was read, which says nothing of forms that are not searched: see the request.
    """

    object: Literal["file.search.summary"]
    is_complete: bool
    files: int
    bytes: int
    files_with_matches: int
    incomplete: int
    after: str | None
