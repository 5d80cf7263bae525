"""Validation of a file's name, purpose and expiry by OpenAI's rules. Pure."""

import json
import re
import unicodedata
from dataclasses import dataclass

from tunewarden.artifacts.sealing import Readable
from tunewarden.errors import Error, Kind

FINE_TUNE = "fine-tune"
RESULTS = "fine-tune-results"
BATCH = "batch"
# Purposes that clients may upload. `evals` is included, although OpenAI's FileObject does not list it: a strictly
# validating client (not the default) rejects such a file in a response, from OpenAI as from us.
UPLOADED = frozenset({"assistants", BATCH, FINE_TUNE, "vision", "user_data", "evals"})
ANCHOR = "created_at"
EXPIRY_SECONDS = (3600, 2_592_000)
BATCH_EXPIRY_SECONDS = 2_592_000
NAME_LENGTH_MAX = 255
MIME_TYPE = re.compile(r"[!-~][ -~]{0,254}")
MD5 = re.compile(r"[0-9a-fA-F]{32}")
# Bytes of a file that are checked on upload; a job checks all of it.
HEAD_BYTES = 64 * 1024

# Control characters, surrogates, line and paragraph separators, and bidirectional overrides.
_UNFIT = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Description:
    """A client's description of a file. `expires_seconds` counts from its creation; None: never."""

    filename: str
    purpose: str
    expires_seconds: int | None

    @classmethod
    def checked(
        cls,
        *,
        filename: str,
        purpose: str,
        anchor: str | None = None,
        seconds: int | str | None = None,
    ) -> "Description":
        """Return the validated description. Raises Error(INVALID)."""
        check_purpose(purpose)
        check_name(filename, purpose)
        return cls(filename, purpose, _expiry(purpose, anchor, seconds))


def check_purpose(purpose: str) -> None:
    """Check that clients may upload files for this purpose. Raises Error(INVALID)."""
    if purpose not in UPLOADED:
        raise Error(
            Kind.INVALID,
            f"'{purpose[:64]}' is not one of {sorted(UPLOADED)} - 'purpose'",
            param="purpose",
        )


def is_fit(text: str) -> bool:
    """Return whether a line of text reads as it is stored: nothing in it is hidden, or turns what stands beside it."""
    return not any(unicodedata.category(one) in _UNFIT or one in _TURNS for one in text)


def check_name(filename: str, purpose: str) -> None:
    """Check a file's name. Raises Error(INVALID)."""
    if not 1 <= len(filename) <= NAME_LENGTH_MAX:
        raise Error(
            Kind.INVALID,
            f"Invalid file name: use 1 to {NAME_LENGTH_MAX} characters.",
            param="filename",
        )
    if not is_fit(filename) or filename in {".", ".."} or "/" in filename or "\\" in filename:
        raise Error(
            Kind.INVALID,
            "A file's name must be a name alone: no slashes, no control characters.",
            param="filename",
        )
    if purpose == FINE_TUNE and not filename.lower().endswith(".jsonl"):
        raise Error(
            Kind.INVALID,
            "Invalid file format for Fine-Tuning API. Must be .jsonl",
            param="file",
        )


def check_beginning(purpose: str, head: bytes, *, is_whole: bool) -> None:
    """Check that training data begins with a JSON object on each line. Raises Error(INVALID).

    `head` is its beginning, or all of it. A quick check: a job checks every line.
    """
    if purpose != FINE_TUNE:
        return
    lines = head.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if is_whole and not found:
        raise Error(Kind.INVALID, "The file is empty.", param="file", code="invalid_file_format")
    for number, line in found:
        goes_on = not is_whole and number == len(lines)
        if not (line.lstrip().startswith(b"{") if goes_on else _is_object(line)):
            raise Error(
                Kind.INVALID,
                f"Invalid file format. Line {number} is not a JSON object: training data has one on"
                " each line.",
                param="file",
                code="invalid_file_format",
            )


def check_mime_type(mime_type: str) -> None:
    """Check a media type's form. Raises Error(INVALID)."""
    if not MIME_TYPE.fullmatch(mime_type):
        raise Error(Kind.INVALID, "mime_type must be 1 to 255 ASCII characters.", param="mime_type")


def check_md5(md5: str) -> None:
    """Check an MD5 checksum's form. Raises Error(INVALID)."""
    if not MD5.fullmatch(md5):
        raise Error(Kind.INVALID, "md5 must have 32 hexadecimal digits.", param="md5")


def _expiry(purpose: str, anchor: str | None, seconds: int | str | None) -> int | None:
    if anchor is None and seconds is None:
        return BATCH_EXPIRY_SECONDS if purpose == BATCH else None
    if anchor != ANCHOR:
        raise Error(
            Kind.INVALID,
            f"expires_after[anchor] must be '{ANCHOR}'.",
            param="expires_after.anchor",
        )
    least, most = EXPIRY_SECONDS
    text = str(seconds)
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise Error(
            Kind.INVALID,
            f"expires_after[seconds] must be a whole number from {least} to {most}.",
            param="expires_after.seconds",
        )
    return int(text)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


class Watched:
    """A reader that counts its bytes and keeps its beginning for `check`."""

    def __init__(self, reader: Readable) -> None:
        self._reader = reader
        self.bytes = 0
        self.head = b""

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self._reader.read(size)
        if self.bytes < HEAD_BYTES:
            self.head += data[: HEAD_BYTES - self.bytes]
        self.bytes += len(data)
        return data

    def check(self, purpose: str) -> None:
        """Check the beginning against the purpose. Raises Error(INVALID)."""
        check_beginning(purpose, self.head, is_whole=self.bytes <= HEAD_BYTES)
