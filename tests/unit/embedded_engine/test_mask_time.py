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


def test_usual_masks_cost_nothing_and_may_take_longer_now_and_then() -> None:
    budget = Budgets(HandClock()).of("a")
    row = RowTime(budget)
    for _ in range(100):
        assert row.spend(SECONDS_A_TOKEN / 2)
    assert row.spend(SAVED_SECONDS / 2)
    assert budget.is_full


def test_slow_masks_end_when_the_budget_is_spent_which_fills_again() -> None:
    clock = HandClock()
    budgets = Budgets(clock)
    rows = [RowTime(budgets.of("a")) for _ in range(4)]
    spent = 0
    while rows[spent % 4].spend(0.05):
        spent += 1
    assert 20 <= spent <= 21
    assert RowTime(budgets.of("b")).spend(0.05)
    clock.sleep(0.1 / BUDGET_SECONDS_A_SECOND)
    assert rows[0].spend(0.05)
    clock.sleep(BUDGET_SECONDS / BUDGET_SECONDS_A_SECOND)
    assert budgets.of("a").is_full


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 3)), max_size=200))
def test_no_number_of_rows_takes_more_than_its_tokens_and_the_budget(
    masks: list[tuple[float, float]],
) -> None:
    clock = HandClock()
    budgets = Budgets(clock)
    began, taken = clock.monotonic(), 0.0
    for seconds, pause in masks:
        clock.sleep(pause)
        if RowTime(budgets.of("a")).spend(seconds):
            taken += max(0.0, seconds - SECONDS_A_TOKEN)
    passed = clock.monotonic() - began
    assert taken <= BUDGET_SECONDS + passed * BUDGET_SECONDS_A_SECOND + 1e-6


def test_full_budgets_are_forgotten() -> None:
    budgets = Budgets(HandClock())
    spent = budgets.of("spent")
    spent.spend(0.5)
    for number in range(2 * BUDGETS_MAX):
        budgets.of(str(number))
    assert budgets.of("spent") is spent
    assert len(budgets._budgets) <= BUDGETS_MAX + 1
