"""Heads that a connection repeats: what a parser said of one is said of its repetition without parsing.

Clients send the same head with each request but for the length of its body. What a parser makes of a head
depends on its bytes alone, so a head that is equal to the last one in all but the digits of its
content-length means the same, with another length.
"""

import re
from dataclasses import dataclass

from tunewarden.identity.keys import Presented

LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,10})\r\n", re.IGNORECASE)
DIGITS_MAX = 10
# With these a head says more than is kept here, or may say something else the next time.
SPECIAL = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"x-client-request-id"})


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was parsed: its bytes before and after the digits of its content-length."""

    before: bytes
    after: bytes
    path: str
    presented: Presented

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body if `data` is one whole request with this head; else it must be parsed."""
        if not data.startswith(self.before):
            return None
        begin = len(self.before)
        end = data.find(b"\r", begin, begin + DIGITS_MAX + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self.after, end):
            return None
        body = data[end + len(self.after) :]
        return body if len(body) == int(digits) else None


def learn(
    data: bytes, headers: list[tuple[bytes, bytes]], path: str, presented: Presented
) -> Head | None:
    """Return the head that `data` begins with, as a parser took it; None if it is not one to keep."""
    head = data[: data.find(b"\r\n\r\n") + 4]
    names = [name for name, _ in headers]
    found = LENGTH.search(head)
    if found is None or names.count(b"content-length") != 1 or not SPECIAL.isdisjoint(names):
        return None
    return Head(head[: found.start(1)], head[found.end(1) :], path, presented)
