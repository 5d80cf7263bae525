"""How long an organization's constraints may keep the batch waiting."""

from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.clock import HandClock

from tunewarden.embedded_engine.mask_time import (
    BUDGET_SECONDS,
    BUDGET_SECONDS_A_SECOND,
    BUDGETS_MAX,
    SAVED_SECONDS,
    SECONDS_A_TOKEN,
    Budgets,
    RowTime,
)

SMALL, REAL = 1026, 151_936


def test_short_masks_go_on_with_nothing_left_and_may_take_longer_now_and_then() -> None:
    budget = Budgets(HandClock(), SMALL).of("a")
    assert not budget.spend(2 * BUDGET_SECONDS)
    row = RowTime(budget)
    for _ in range(1000):
        assert row.spend(SECONDS_A_TOKEN / 2, 1.0)
    assert row.spend(SAVED_SECONDS, 1.0)
    assert not row.spend(SAVED_SECONDS, 1.0)


def test_rows_of_a_real_vocabulary_may_take_longer_for_a_token() -> None:
    for vocabulary, goes_on in ((SMALL, False), (REAL, True)):
        budget = Budgets(HandClock(), vocabulary).of("a")
        assert not budget.spend(2 * BUDGET_SECONDS)
        row = RowTime(budget)
        # What 120 tokens of a string of at most 40 characters took on Qwen's.
        assert all(row.spend(0.00024, 0.00024) for _ in range(120)) == goes_on


def test_slow_masks_end_when_the_budget_is_spent_which_fills_again() -> None:
    clock = HandClock()
    budgets = Budgets(clock, SMALL)
    rows = [RowTime(budgets.of("a")) for _ in range(4)]
    slow = BUDGET_SECONDS / 20
    spent = 0
    while rows[spent % 4].spend(slow, slow):
        spent += 1
    assert 19 <= spent <= 20
    assert RowTime(budgets.of("b")).spend(slow, slow)
    clock.sleep(2 * slow / BUDGET_SECONDS_A_SECOND)
    assert rows[0].spend(slow, slow)
    clock.sleep(BUDGET_SECONDS / BUDGET_SECONDS_A_SECOND)
    assert budgets.of("a").is_full


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 3)), max_size=200))
def test_no_number_of_slow_rows_takes_more_than_the_budget(
    masks: list[tuple[float, float]],
) -> None:
    clock = HandClock()
    budgets = Budgets(clock, SMALL)
    began, taken = clock.monotonic(), 0.0
    for seconds, pause in masks:
        clock.sleep(pause)
        budget = budgets.of("a")
        if RowTime(budget).spend(seconds, seconds) and seconds > budget.seconds_a_token:
            taken += seconds
    passed = clock.monotonic() - began
    assert taken <= BUDGET_SECONDS + passed * BUDGET_SECONDS_A_SECOND + 1e-6


def test_full_budgets_are_forgotten() -> None:
    budgets = Budgets(HandClock(), SMALL)
    spent = budgets.of("spent")
    spent.spend(0.5)
    for number in range(2 * BUDGETS_MAX):
        budgets.of(str(number))
    assert budgets.of("spent") is spent
    assert len(budgets._budgets) <= BUDGETS_MAX + 1
