"""The metrics of each step: for the results file, for checkpoints, and for resuming."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

HEADER = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
DIGITS = 5
# A base is better than random guessing. One whose weights have exploded may not be, and yet its loss
# is finite, because norms keep it so.
GUESSING_STEPS, GUESSING_SHARE = 20, 0.999


@dataclass(frozen=True, slots=True)
class Measured:
    """A loss and an accuracy, as defined in `messages.py`."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """The metrics of one step; `valid` if it evaluated a batch of the validation file."""

    step: int
    train: Measured
    valid: Measured | None = None


@dataclass
class Results:
    """All steps up to now, in order."""

    steps: list[StepNumbers] = field(default_factory=list)
    trained_tokens: int = 0

    def last_valid(self) -> Measured | None:
        """Return the last metrics on the validation file."""
        return next((one.valid for one in reversed(self.steps) if one.valid is not None), None)

    def is_guessing(self, guess_loss: float) -> bool:
        """Return whether the last steps were no better than random guessing."""
        last = self.steps[-GUESSING_STEPS:]
        return len(last) == GUESSING_STEPS and all(
            one.train.loss >= GUESSING_SHARE * guess_loss for one in last
        )

    def csv(self) -> str:
        """Return the results file."""
        rows = (
            [str(one.step), *_shown(one.train), *(_shown(one.valid) if one.valid else ("", ""))]
            for one in self.steps
        )
        return "\n".join([HEADER, *(",".join(row) for row in rows)]) + "\n"

    def metrics(self, full_valid: Measured | None) -> dict[str, float]:
        """Return a checkpoint's metrics at the last step, by OpenAI's names."""
        last = self.steps[-1]
        found: dict[str, float] = {"step": last.step}
        for name, measured in (
            ("train", last.train),
            ("valid", self.last_valid()),
            ("full_valid", full_valid),
        ):
            if measured is not None:
                found[f"{name}_loss"] = rounded(measured.loss)
                found[f"{name}_mean_token_accuracy"] = rounded(measured.accuracy)
        return found

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rows = [
            [one.step, *_pair(one.train), *(_pair(one.valid) if one.valid else ())]
            for one in self.steps
        ]
        return {"steps": rows, "trained_tokens": self.trained_tokens}


def loaded(values: dict[str, Any]) -> Results:
    """Return what `dump` made. Raises LookupError, TypeError, ValueError."""
    steps = [
        StepNumbers(int(row[0]), Measured(*row[1:3]), Measured(*row[3:]) if row[3:] else None)
        for row in values["steps"]
    ]
    return Results(steps, int(values["trained_tokens"]))


def rounded(number: float) -> float:
    """Round a number to its significant digits."""
    return round(number, DIGITS)


def _shown(measured: Measured) -> Iterable[str]:
    return (f"{number:.{DIGITS}f}" for number in _pair(measured))


def _pair(measured: Measured) -> tuple[float, float]:
    return measured.loss, measured.accuracy
