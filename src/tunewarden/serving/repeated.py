"""Heads that a connection repeats: what a parser said of one is said of its repetition without parsing.

Both sides of a connection send the same head over and over but for the length of its body. What a parser
makes of a head depends on its bytes alone, so a head that is equal to the last one in all but the digits of
its content-length means the same, with another length.
"""

import re
from dataclasses import dataclass

LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,10})\r\n", re.IGNORECASE)
DIGITS_MAX = 10


@dataclass(frozen=True, slots=True)
class Repeated:
    """A head's bytes before and after the digits of its content-length."""

    before: bytes
    after: bytes

    def body_of(self, data: bytes) -> bytes | None:
        """Return the body if `data` is one whole message with this head; else it must be parsed."""
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
    """Return the head that `data` begins with; None if it states no length.

    Whoever calls this has parsed it, and found one content-length and nothing in it to say no to.
    """
    head = data[: data.find(b"\r\n\r\n") + 4]
    found = LENGTH.search(head)
    return None if found is None else Repeated(head[: found.start(1)], head[found.end(1) :])
