"""RFC 8785 for the values in receipts: texts, whole numbers, true, false, null, lists, and objects with ASCII names.

Without fractions the standard library's encoder gives the same bytes, 20 times as fast as `rfc8785`, which
verifies them: a deletion waits for what is encoded here. A test holds one against the other.
"""

import json
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value without fractions."""
    return _encode(value).encode()
