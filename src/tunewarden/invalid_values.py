"""Errors for invalid values in requests: they name the parameter, the value, shortened, and what is taken."""

import json
from collections.abc import Iterable
from typing import Any

from tunewarden.errors import Error, Kind

# Of a value in an error message.
SHOWN_CHARACTERS = 100
JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def joined(within: str, name: str) -> str:
    """Return the full name of a parameter inside another one; a name that is too long for an error is shortened."""
    short = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}…"
    return f"{within}.{short}" if within else short


def shown(value: Any) -> str:
    """Return a value of a request as JSON, shortened, for an error message."""
    if isinstance(value, str):
        value = value[: SHOWN_CHARACTERS + 1]
    text = ""
    for piece in JSON.iterencode(value):  # lazily: a value may have megabytes
        text += piece
        if len(text) > SHOWN_CHARACTERS:
            return f"{text[:SHOWN_CHARACTERS]}…"
    return text


def unsupported(value: Any, supported: Iterable[str], path: str) -> Error:
    """Return the error for a value that is not one of those that are supported."""
    listed = ", ".join(f"'{one}'" for one in supported)
    got = f"'{joined('', value)}'" if isinstance(value, str) else shown(value)
    text = f"Invalid value: {got}. Supported values are: {listed}."
    return invalid(text, path, "invalid_value")


def wrong_type(path: str, expected: str, value: Any) -> Error:
    """Return the error for a value of another type than `expected` (words, such as "a string")."""
    got = NAMES.get(type(value), "something else")
    message = (
        f"Invalid type for '{path}': expected {expected}, but got {got} instead: {shown(value)}."
    )
    return invalid(message, path, "invalid_type")


def invalid(message: str, path: str | None, code: str) -> Error:
    """Return a 400 that names a parameter."""
    return Error(Kind.INVALID, message, param=path, code=code)
