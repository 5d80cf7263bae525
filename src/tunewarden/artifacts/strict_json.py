"""Strict parser for untrusted JSON: bounded, UTF-8, no duplicate keys, no NaN, infinity or NUL. Raises only `Malformed`."""

import json
import math
from collections import Counter
from typing import NoReturn

NOT_TEXT = "has a lone surrogate or a NUL character"


class Malformed(ValueError):
    """The problem, as the end of a sentence that begins with the file's name.

    `key` is the top-level key of the offending value, if known.
    """

    def __init__(self, wrong: str, key: str | None = None) -> None:
        super().__init__(wrong)
        self.key = key


def is_text(value: str) -> bool:
    """Return whether text can be stored and sent: no lone surrogate (not encodable as UTF-8), no NUL."""
    if value.isascii():
        return "\0" not in value
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def shown(value: object) -> str:
    """Return a short ASCII form of untrusted text, for a message."""
    text = ascii(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def parse_object(data: bytes, *, max_values: int) -> dict[str, object]:
    """Return the JSON object in `data`. Raises `Malformed`.

    At most about `max_values` values in total, which bounds the memory that a small text can need.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > max_values:
        raise Malformed(f"holds more than {max_values} values")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed("is not UTF-8 text") from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
        )
    except Malformed:
        raise
    except RecursionError as error:
        raise Malformed("is nested too deeply") from error
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        raise Malformed("is not valid JSON") from error
    if not isinstance(value, dict):
        raise Malformed("is not a JSON object")
    if b"\\u" in data:  # Only an escape can encode such text.
        _check_text(value)
    return value


def _check_text(top: dict[str, object]) -> None:
    for key, value in top.items():
        if not is_text(key):
            raise Malformed(f"holds the key {shown(key)}, which {NOT_TEXT}")
        left = [value]
        while left:
            one = left.pop()
            if isinstance(one, str) and not is_text(one):
                raise Malformed(f"holds text in {shown(key)} that {NOT_TEXT}", key)
            if isinstance(one, dict):
                left += [*one, *one.values()]
            elif isinstance(one, list):
                left += one


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise Malformed(f"holds the key {shown(twice)} twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("holds a number beyond the range of a float")
    return value


def _not_finite(text: str) -> NoReturn:
    raise Malformed(f"holds {text}, which is not JSON")
