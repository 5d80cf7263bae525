"""How long a source is waited for."""

import pytest
from tests.fakes.clock import HandClock

from tunewarden.errors import Error, Kind
from tunewarden.migration.waiting import (
    ASKED_ATTEMPTS_MAX,
    ATTEMPTS_MAX,
    Patience,
    Pauses,
    asked_seconds,
    is_retried,
)


def test_what_the_source_asks_for_is_waited_for_by_all_its_requests() -> None:
    clock, said = HandClock(), list[str]()
    pauses = Pauses(clock, said.append)
    Patience(pauses).wait("It is at its rate limit", 20)
    assert clock.monotonic() == pytest.approx(20)
    pauses.ask(5, "It is at its rate limit")
    pauses.wait()
    assert clock.monotonic() == pytest.approx(25)
    assert said == [
        "It is at its rate limit; waiting 20 s.",
        "It is at its rate limit; waiting 5 s.",
    ]


def test_without_a_word_the_intervals_grow_and_the_tries_end() -> None:
    clock = HandClock()
    patience = Patience(Pauses(clock, lambda _: None))
    for _ in range(ATTEMPTS_MAX - 1):
        patience.wait("No answer")
    assert clock.monotonic() == pytest.approx(1 + 2 + 4 + 8 + 16)
    with pytest.raises(Error, match="run the command again") as raised:
        patience.wait("No answer")
    assert raised.value.kind is Kind.UNAVAILABLE


def test_a_source_that_asks_to_wait_for_too_long_is_given_up() -> None:
    clock = HandClock()
    patience = Patience(Pauses(clock, lambda _: None))
    patience.wait("It is at its rate limit", 3000)
    with pytest.raises(Error, match="and asks to wait for 3000 s"):
        patience.wait("It is at its rate limit", 3000)
    assert clock.monotonic() == pytest.approx(3000)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:27:15 GMT",
            },
            45,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:29:00 GMT",
            },
            0,
        ),
        ({"retry-after": "soon", "date": "Wed, 21 Oct 2026 07:29:00 GMT"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf", "x-ratelimit-reset-tokens": "2s"}, 2),
        ({"retry-after": "1e400"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, 360),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"retry-after": "-1"}, 0),
        ({}, None),
    ],
)
def test_the_words_of_an_answer_that_asks_to_wait(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_seconds(429, headers) == seconds


def test_a_limit_that_is_reset_says_nothing_about_an_error_of_the_server() -> None:
    headers = {"x-ratelimit-reset-tokens": "6m0s"}
    assert asked_seconds(500, headers) is None
    assert asked_seconds(503, {**headers, "retry-after": "2"}) == 2


def test_who_is_asked_to_wait_for_nothing_again_and_again_waits_nevertheless() -> None:
    clock = HandClock()
    patience = Patience(Pauses(clock, lambda _: None))
    for _ in range(ASKED_ATTEMPTS_MAX - 1):
        patience.wait("It is at its rate limit", 0)
    assert clock.monotonic() > ASKED_ATTEMPTS_MAX - 20
    with pytest.raises(Error):
        patience.wait("It is at its rate limit", 0)


def test_limits_that_were_waited_for_do_not_count_as_failures() -> None:
    patience = Patience(Pauses(HandClock(), lambda _: None))
    for _ in range(ATTEMPTS_MAX + 1):
        patience.wait("It is at its rate limit", 1)
    patience.wait("No answer")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 520, 524, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert is_retried(status)


def test_nothing_is_waited_for_after_the_end() -> None:
    pauses = Pauses(HandClock(), lambda _: None)
    pauses.stop()
    with pytest.raises(Error, match="is ending"):
        pauses.wait()
