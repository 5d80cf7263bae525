"""End-of-step processing: record metrics, report progress, and save checkpoints and states.

Everything offered is a directory below scratch, and removed when acknowledged.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tunewarden.clock import Clock
from tunewarden.trainer import adapters, states
from tunewarden.trainer.batches import Cutter
from tunewarden.trainer.control import Control, Reporter
from tunewarden.trainer.messages import Checkpoint, Finished, Offer, Progress, State
from tunewarden.trainer.results import Measured, Results, StepNumbers, rounded
from tunewarden.trainer.schedule import Schedule
from tunewarden.trainer.training import Training

# A batch of the validation file is measured this often, in steps; the whole file after each epoch.
VALID_STEPS = 10
ADAPTER, STATE, RESULTS = "adapter", "state", "results.csv"


class Steps:
    """The steps of one run. `is_paused`: it ended because of a pause."""

    def __init__(
        self,
        control: Control,
        reporter: Reporter,
        clock: Clock,
        *,
        scratch: Path,
        state_seconds: float,
        schedule: Schedule,
        cutters: Sequence[Cutter],
        results: Results,
        guess_loss: float,
    ) -> None:
        """`guess_loss` is the loss of random guessing."""
        self.is_paused = False
        self._control = control
        self._reporter = reporter
        self._clock = clock
        self._scratch = scratch
        self._state_seconds = state_seconds
        self._schedule = schedule
        self._cutters = cutters
        self._results = results
        self._guess_loss = guess_loss
        self._steps_before = len(results.steps)
        self._began_at = self._state_at = clock.monotonic()

    def begin(self) -> None:
        """Start the timers."""
        self._began_at = self._state_at = self._clock.monotonic()

    def ended(self, training: Training) -> bool:
        """Record and report a step, save what is due; return whether to stop. Raises Failure."""
        step = training.step
        valid = self._measure_batch(training, step)
        self._results.steps.append(StepNumbers(step, training.measured, valid))
        self._results.trained_tokens += training.step_tokens
        if self._results.is_guessing(self._guess_loss):
            raise adapters.diverged()
        self._tell(training)
        is_epoch = step % self._schedule.steps_an_epoch == 0
        if is_epoch:
            self._keep_checkpoint(training)
        is_pausing = self._control.is_pausing
        now = self._clock.monotonic()
        if is_epoch or is_pausing or now - self._state_at >= self._state_seconds:
            self._keep_state(training)
        self.is_paused = is_pausing
        return is_pausing

    def finish(self, training: Training) -> None:
        """Offer the adapter and the results."""
        directory, results = self._new(ADAPTER), self._scratch / RESULTS
        adapters.save_adapter(training.model, directory)
        results.write_text(self._results.csv(), "utf-8")
        self._offer(
            Finished(str(directory), str(results), self._results.trained_tokens), directory, results
        )

    def _measure_batch(self, training: Training, step: int) -> Measured | None:
        """Evaluate the next batch of the validation file, every few steps."""
        if len(self._cutters) < 2 or (step % VALID_STEPS and step != self._schedule.steps):
            return None
        cutter, size = self._cutters[1], self._schedule.batch_size
        count = len(cutter.examples)
        start = (step // VALID_STEPS * size) % count
        return training.measure(cutter.pieces(range(start, min(start + size, count))))

    def _tell(self, training: Training) -> None:
        step, steps = training.step, self._schedule.steps
        valid = self._results.last_valid()
        done = step - self._steps_before
        seconds_a_step = (self._clock.monotonic() - self._began_at) / max(1, done)
        self._reporter.note(
            Progress(
                step=step,
                steps=steps,
                epoch=rounded(step / self._schedule.steps_an_epoch),
                train_loss=rounded(training.measured.loss),
                train_mean_token_accuracy=rounded(training.measured.accuracy),
                valid_loss=None if valid is None else rounded(valid.loss),
                valid_mean_token_accuracy=None if valid is None else rounded(valid.accuracy),
                learning_rate=training.learning_rate,
                trained_tokens=self._results.trained_tokens,
                seconds_left=round(seconds_a_step * (steps - step), 1),
            )
        )

    def _keep_checkpoint(self, training: Training) -> None:
        full = None
        if len(self._cutters) > 1:
            full = training.measure(self._cutters[1].all_pieces())
        directory = self._new(ADAPTER)
        adapters.save_adapter(training.model, directory)
        metrics = self._results.metrics(full)
        self._offer(Checkpoint(training.step, str(directory), metrics), directory)

    def _keep_state(self, training: Training) -> None:
        directory = self._new(STATE)
        states.save(directory, training, self._results, self._schedule, self._cutters)
        self._offer(State(training.step, str(directory)), directory)
        self._state_at = self._clock.monotonic()

    def _new(self, name: str) -> Path:
        directory = self._scratch / name
        directory.mkdir(mode=0o700)
        return directory

    def _offer(self, message: Offer, *places: Path) -> None:
        self._control.offer(message)
        for place in places:
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
