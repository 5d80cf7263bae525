"""The head of a receiver's answer: its status, and when it wants to be asked again. The body means nothing."""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from tunewarden.webhooks.failures import AttemptFailed, Failure

BYTES_MAX = 16 * 1024
# The statuses whose `Retry-After` counts. RFC 9110 §10.2.3, RFC 6585 §4
BUSY = frozenset({429, 503})
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?")
_END = re.compile(rb"\r?\n\r?\n")
_RETRY_AFTER = re.compile(rb"\nretry-after:[ \t]*([^\r\n]{1,64})", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]+")
# Longer than any wait that the sender grants.
_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True)
class Head:
    """The final head of an answer. `retry_after_seconds` is None if it does not say, or is not busy."""

    status: int
    retry_after_seconds: int | None


def read(data: bytes, now: datetime) -> Head | None:
    """Return the head at the start of what was received, None if it is not complete; interim ones (1xx) are skipped.

    Raises AttemptFailed for what is no HTTP, or longer than BYTES_MAX.
    """
    start = 0
    while True:
        line, is_line, _ = data[start:].partition(b"\n")
        found = _STATUS.fullmatch(line) if is_line else None
        end = _END.search(data, start)
        if (is_line and found is None) or (end is None and len(data) > BYTES_MAX):
            raise AttemptFailed(Failure.PROTOCOL)
        if found is None or end is None:
            return None
        status = int(found[1])
        if status >= 200:
            return Head(status, _retry_after(status, data[start : end.start()], now))
        start = end.end()


def _retry_after(status: int, head: bytes, now: datetime) -> int | None:
    sent = _RETRY_AFTER.search(head) if status in BUSY else None
    if sent is None:
        return None
    text = sent[1].decode("latin-1").strip()
    if _SECONDS.fullmatch(text):
        digits = text.lstrip("0") or "0"
        return int(digits if len(digits) <= _DIGITS_MAX else "9" * _DIGITS_MAX)
    try:
        at = parsedate_to_datetime(text)
        return max(0, int((at - now).total_seconds()))
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return None
