"""Heads of receivers' answers, as they may arrive: in pieces, after interim ones, busy, and no heads at all."""

from datetime import UTC, datetime

import pytest

from tunewarden.webhooks import heads
from tunewarden.webhooks.failures import AttemptFailed
from tunewarden.webhooks.heads import Head

NOW = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (503, "120", 120),
        (429, "0", 0),
        (429, "  5 ", 5),
        (503, "Tue, 01 Dec 2026 12:01:00 GMT", 60),
        (503, "Tue, 01 Dec 2026 11:00:00 GMT", 0),
        (503, "Tue, 01 Dec 2026 12:01:00", None),
        (503, "-5", None),
        (503, "1.5", None),
        (503, "9999999999", 999_999_999),
        (429, "1" + "0" * 60, 999_999_999),
        (429, "0" * 40 + "7", 7),
        (503, "soon", None),
        (503, "", None),
        (500, "120", None),
        (200, "120", None),
    ],
)
def test_retry_after_counts_for_who_is_busy(status: int, value: str, expected: int | None) -> None:
    answer = f"HTTP/1.1 {status} X\r\nRETRY-after:{value}\r\n\r\n".encode()
    assert heads.read(answer, NOW) == Head(status, expected)


def test_a_head_is_read_when_all_of_it_is_there() -> None:
    answer = b"HTTP/1.1 103 Early\r\nretry-after: 9\r\n\r\nHTTP/1.0 503\r\nretry-after: 7\r\n\r\nretry-after: 8"
    whole = answer.index(b"\r\n\r\nretry-after: 8") + 4
    for end in range(whole):
        assert heads.read(answer[:end], NOW) is None
    for end in range(whole, len(answer) + 1):
        assert heads.read(answer[:end], NOW) == Head(503, 7)


def test_lines_may_end_without_a_carriage_return() -> None:
    assert heads.read(b"HTTP/1.1 204 No Content\nx: y\n\n", NOW) == Head(204, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * heads.BYTES_MAX,
        b"x" * (heads.BYTES_MAX + 1),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=["no http", "status", "long head", "long line", "interim for ever"],
)
def test_what_is_no_head_is_refused(answer: bytes) -> None:
    with pytest.raises(AttemptFailed):
        heads.read(answer, NOW)
