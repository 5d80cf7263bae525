"""What "auto" means, as a table, and the learning rate over the steps."""

import pytest

from tunewarden.trainer.messages import Hyperparameters, Method
from tunewarden.trainer.schedule import schedule

AUTO = Hyperparameters()


@pytest.mark.parametrize(
    ("method", "examples", "epochs", "batch", "steps"),
    [
        ("supervised", 1, 25, 1, 25),
        ("supervised", 10, 25, 1, 250),
        ("supervised", 100, 5, 8, 65),
        ("supervised", 1_000, 3, 8, 375),
        ("supervised", 10_000, 2, 20, 1_000),
        ("supervised", 1_000_000, 1, 256, 3_907),
        ("dpo", 10, 15, 1, 150),
        ("dpo", 100, 3, 8, 39),
    ],
)
def test_auto_follows_the_number_of_examples(
    method: Method, examples: int, epochs: int, batch: int, steps: int
) -> None:
    plan = schedule(AUTO, method, examples=examples, parameters=4_000_000)
    assert (plan.n_epochs, plan.batch_size, plan.steps) == (epochs, batch, steps)
    assert (plan.learning_rate_multiplier, plan.beta) == (1, 0.1 if method == "dpo" else None)


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [(1_000, 2.5e-3), (4_000_000, 2.5e-3), (1_000_000_000, 2e-4), (70_000_000_000, 2e-4)],
)
def test_the_rate_follows_the_size_of_the_base(parameters: int, rate: float) -> None:
    plan = schedule(AUTO, "supervised", examples=100, parameters=parameters)
    assert plan.learning_rate == pytest.approx(rate)
    twice = Hyperparameters(learning_rate_multiplier=2.0)
    other = schedule(twice, "supervised", examples=100, parameters=parameters)
    assert other.learning_rate == pytest.approx(2 * rate)


def test_what_is_asked_for_is_kept() -> None:
    asked = Hyperparameters(n_epochs=7, batch_size=3, learning_rate_multiplier=0.5, beta=0.4)
    plan = schedule(asked, "dpo", examples=10, parameters=10**9)
    assert (plan.n_epochs, plan.batch_size, plan.steps, plan.beta) == (7, 3, 28, 0.4)
    assert schedule(asked, "supervised", examples=2, parameters=1).batch_size == 2


@pytest.mark.parametrize("examples", [1, 10, 100, 5_000])
def test_the_rate_warms_up_falls_and_is_never_zero(examples: int) -> None:
    plan = schedule(AUTO, "supervised", examples=examples, parameters=1)
    shares = [plan.share(step) for step in range(plan.steps)]
    top = shares.index(max(shares))
    assert max(shares) == 1
    assert min(shares) > 0
    assert top <= max(1, plan.steps // 10)
    assert shares[top:] == sorted(shares[top:], reverse=True)
