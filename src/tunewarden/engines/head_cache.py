"""Matches a message whose head equals the previous one except for Content-Length, without parsing.

Both sides of a connection repeat the same head except for the body's length. A parser's result
depends on a head's bytes only, so a head that equals the last one except for the digits of
its Content-Length parses the same, with another length.
"""

import re
from dataclasses import dataclass

LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,10})\r\n", re.IGNORECASE)
DIGITS_MAX = 10


@dataclass(frozen=True, slots=True)
class Repeated:
    """A head's bytes before and after the digits of its Content-Length."""

    before: bytes
    after: bytes

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body if `data` is one complete message with this head; else None: it must be parsed."""
        if not data.startswith(self.before):
            return None
        begin = len(self.before)
        end = data.find(b"\r", begin, begin + DIGITS_MAX + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        body = data[end + len(self.after) :]
        return body if len(body) == int(digits) else None


def learn(data: bytes) -> Repeated | None:
    """Return the head that `data` begins with; None if it has no Content-Length.

    The caller has parsed it: valid, with exactly one Content-Length.
    """
    head = data[: data.find(b"\r\n\r\n") + 4]
    found = LENGTH.search(head)
    return None if found is None else Repeated(head[: found.start(1)], head[found.end(1) :])
