"""JSON from strangers: bounded, UTF-8, no key twice, no NaN or infinity; nothing else raised."""

import json
import math
from collections import Counter
from typing import NoReturn


class Malformed(ValueError):
    """What is wrong, as the end of a sentence that begins with the file's name."""


def shown(value: object) -> str:
    """Return a short ASCII form of a stranger's text, fit for a message."""
    text = ascii(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def parse_object(data: bytes, *, max_values: int) -> dict[str, object]:
    """Return the JSON object in `data`. Raises `Malformed`.

    At most about `max_values` values in all, which bounds the memory that small text can claim.
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
    return value


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
