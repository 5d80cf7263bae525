"""Readers of a statement's JSON. Each accepts exactly one form, so that a statement has one reading.

A reader takes a parsed value and returns a fact; `ValueError` for any other form. Ids cannot hold an
e-mail address or a space, times are UTC with microseconds, and no text can move a terminal's cursor.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_LIST = 1_000
_MAX_INTEGER = 2**53 - 1  # RFC 8785 / I-JSON
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}")
_HEX_32_BYTES = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
)
Reader = Callable[[object], Any]


def text(value: object) -> str:
    """Read 1 to 512 printable characters."""
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.isprintable():
        raise ValueError("a text is empty, too long or not printable")
    return value


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"not {what}")
        return value

    return read


def one_of(words: frozenset[str]) -> Callable[[object], str]:
    """Return a reader of one of these words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"not one of {', '.join(sorted(words))}")
        return value

    return read


def integer(value: object) -> int:
    """Read a whole number from 0 to 2^53 - 1."""
    # `type`, because isinstance counts True as an int.
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise ValueError("not a whole number")
    return value


def flag(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError("not true or false")  # noqa: TRY004 - one exception for the verifier
    return value


identifier = _matching(_ID, "an id")
time = _matching(_TIME, "a UTC time with microseconds")
sha256 = _matching(_HEX_32_BYTES, "32 bytes in lower-case hex")


def object_of(make: Callable[..., Any], readers: Mapping[str, Reader]) -> Reader:
    """Return a reader of a JSON object with exactly these members, in the order of `make`'s fields."""

    def read(value: object) -> Any:
        if not isinstance(value, dict) or value.keys() != readers.keys():
            raise ValueError("an object has other members than this format")
        return make(*(reader(value[name]) for name, reader in readers.items()))

    return read


def list_of(reader: Reader) -> Callable[[object], tuple[Any, ...]]:
    """Return a reader of a list of at most MAX_LIST items."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_LIST:
            raise ValueError("not a list, or too long")
        return tuple(map(reader, value))

    return read


def nullable(reader: Reader) -> Reader:
    """Return a reader that also accepts null."""
    return lambda value: None if value is None else reader(value)
