"""How long a source is waited for."""

import pytest
from tests.fakes.clock import HandClock

from tunewarden.errors import Error, Kind
from tunewarden.migration.waiting import ATTEMPTS_MAX, Patience, Pauses, asked_seconds


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
    with pytest.raises(Error):
        patience.wait("It is at its rate limit", 3000)
    assert clock.monotonic() == pytest.approx(3000)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "20ms"}, 360),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"retry-after": "-1"}, 0),
        ({}, None),
    ],
)
def test_the_words_of_an_answer_that_asks_to_wait(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_seconds(headers) == seconds
