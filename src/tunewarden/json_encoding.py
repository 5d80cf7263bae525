"""JSON encoding that is valid UTF-8 for any stored text."""

import json
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder()


def encoded(value: Any) -> bytes:
    """Return JSON in UTF-8; structs are objects. A lone surrogate, which has no UTF-8, becomes U+FFFD.

    Input with one is refused, but rows written by earlier versions may hold one.
    """
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
