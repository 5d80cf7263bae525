"""Curves: at most so many points, no peak lost, the same whatever else is read later."""

from hypothesis import given
from hypothesis import strategies as st

from tunewarden.finetuning import curves
from tunewarden.finetuning.events import Metrics

Rows = list[Metrics]


def metrics(step: int, loss: float, *, total: int, **more: float) -> Metrics:
    return Metrics(step=step, total_steps=total, train_loss=loss, **more)


def pairs(points: list[curves.Point]) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in points]


def train(rows: Rows, points: int) -> list[tuple[int, float]]:
    """The loss of rows that are given oldest first."""
    return pairs(curves.drawn("ftjob-x", rows[::-1], points).points["train_loss"])


@given(
    st.lists(st.floats(0, 9, allow_nan=False), min_size=1, max_size=300),
    st.integers(curves.POINTS_MIN, 40),
)
def test_a_curve_keeps_its_extremes_in_at_most_so_many_points(
    losses: list[float], points: int
) -> None:
    rows = [metrics(n, loss, total=len(losses)) for n, loss in enumerate(losses, 1)]
    found = train(rows, points)
    assert len(found) <= points
    assert set(found) <= set(enumerate(losses, 1)), "each point was measured"
    assert found == sorted(found)
    values = [value for _, value in found]
    assert (min(values), max(values)) == (min(losses), max(losses))
    assert found == train(rows, points)


@given(st.lists(st.floats(0, 9, allow_nan=False), min_size=40, max_size=120), st.data())
def test_what_is_drawn_does_not_move_while_a_job_goes_on(
    losses: list[float], draw: st.DataObject
) -> None:
    rows = [metrics(n, loss, total=len(losses)) for n, loss in enumerate(losses, 1)]
    now = draw.draw(st.integers(20, len(losses)))
    width = -(-len(losses) // 5)
    complete = now // width * width  # the last bucket may still get lower and higher values
    early = [one for one in train(rows[:now], 10) if one[0] <= complete]
    late = [one for one in train(rows, 10) if one[0] <= complete]
    assert early == late


def test_a_short_curve_has_every_step() -> None:
    rows = [metrics(n, 1 / n, total=8) for n in range(1, 9)]
    assert train(rows, 200) == [(n, 1 / n) for n in range(1, 9)]


def test_what_an_attempt_measured_beyond_its_saved_state_counts_no_more() -> None:
    first = [metrics(n, 9.0, total=6) for n in (1, 2, 3, 4)]
    second = [metrics(n, 1.0, total=6) for n in (3, 4, 5)]
    again = [metrics(5, 1.0, total=6)]  # a long step repeats its progress
    found = train(first + second + again, 100)
    assert found == [(1, 9.0), (2, 9.0), (3, 1.0), (4, 1.0), (5, 1.0)]


def test_repeated_figures_of_the_validation_file_are_one_point() -> None:
    said = [None, None, (2.0, 0.5), (2.0, 0.5), (1.5, 0.5), (1.5, 0.6), (1.5, 0.6)]
    rows = [
        metrics(
            n,
            1.0,
            total=7,
            **({"valid_loss": one[0], "valid_mean_token_accuracy": one[1]} if one else {}),
        )
        for n, one in enumerate(said, 1)
    ]
    found = curves.drawn("ftjob-x", rows[::-1], 100).points
    assert pairs(found["valid_loss"]) == [(3, 2.0), (5, 1.5), (6, 1.5)]
    assert pairs(found["valid_mean_token_accuracy"]) == [(3, 0.5), (5, 0.5), (6, 0.6)]
    assert len(found["train_loss"]) == 7


def test_a_job_without_metrics_has_empty_curves() -> None:
    found = curves.drawn("ftjob-x", [], 10)
    assert (found.step, found.total_steps) == (None, None)
    assert set(found.points) == {*curves.TRAINING, *curves.VALIDATION}
    assert not any(found.points.values())
