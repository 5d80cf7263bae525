"""`transformers.Trainer` for one job, with our micro-batches and our files.

It provides the epochs and steps, the optimizer, clipping, devices. One of its steps is one of
ours, for any number of micro-batches.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from tunewarden.trainer.adapters import diverged
from tunewarden.trainer.batches import Cutter, Order, Piece, length
from tunewarden.trainer.losses import Objective
from tunewarden.trainer.results import Measured
from tunewarden.trainer.schedule import Schedule
from tunewarden.trainer.states import Saved

GRADIENT_NORM_MAX = 1.0
PIECES = "pieces"


class Training(Trainer):  # type: ignore[misc]  # transformers is untyped
    """One run. `after_step` is called at the end of each step and returns whether to stop there."""

    lr_scheduler: Any

    def __init__(
        self,
        model: Any,
        cutter: Cutter,
        objective: Objective,
        schedule: Schedule,
        *,
        scratch: Path,
        seed: int,
        device: torch.device,
        after_step: Callable[["Training"], bool],
        saved: Saved | None,
    ) -> None:
        arguments = TrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=schedule.n_epochs,
            per_device_train_batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            max_grad_norm=GRADIENT_NORM_MAX,
            seed=seed % 2**32,
            use_cpu=device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
            log_level="error",
            dataloader_pin_memory=False,
        )
        # With more than one GPU it would wrap the model in DataParallel, which does not fit our micro-batches.
        arguments._n_gpu = min(1, arguments.n_gpu)  # noqa: SLF001 - as Trainer itself does
        super().__init__(model=model, args=arguments)
        self.remove_callback(PrinterCallback)
        self.add_callback(_AfterStep(self, after_step))
        self._cutter = cutter
        self._objective = objective
        self._schedule = schedule
        self._device = device
        self._saved = saved
        lengths = [length(example) for example in cutter.examples]
        self._order = Order(
            lengths, schedule.batch_size, seed, lambda: self.step // schedule.steps_an_epoch
        )
        self.measured = Measured(math.nan, math.nan)
        self.learning_rate = 0.0
        self.step_tokens = 0

    @property
    def step(self) -> int:
        """The number of completed steps, those before a resume included."""
        return int(self.state.global_step)

    def get_train_dataloader(self) -> Any:
        """Return a loader whose batches are lists of pieces, one for each step of an epoch."""

        def collate(numbers: list[int]) -> dict[str, list[Piece]]:
            return {PIECES: self._cutter.pieces(numbers)}

        numbers: Any = range(len(self._cutter.examples))
        return DataLoader(numbers, batch_sampler=self._order, collate_fn=collate)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the scheduler of our schedule."""
        del num_training_steps  # the schedule's own
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, self._schedule.share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(
        self, model: Any, inputs: dict[str, list[Piece]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Accumulate the gradient of one step. Raises Failure if its loss is not finite."""
        del num_items_in_batch  # counted by the objective
        model.train()
        found = inputs[PIECES]
        count = self._objective.count(found)
        loss = torch.zeros((), device=self._device)
        right = torch.zeros((), device=self._device)
        for piece in found:
            outcome = self._objective(model, piece.to(self._device))
            self.accelerator.backward(outcome.loss / count)
            loss += outcome.loss.detach()
            right += outcome.right
        self.measured = _mean(loss, right, count)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.step_tokens = sum(piece.tokens for piece in found)
        return loss / count

    @torch.no_grad()
    def measure(self, found: Sequence[Piece]) -> Measured:
        """Evaluate loss and accuracy of micro-batches. Raises Failure if not finite."""
        self.model.eval()
        loss = torch.zeros((), device=self._device)
        right = torch.zeros((), device=self._device)
        for piece in found:
            outcome = self._objective(self.model, piece.to(self._device))
            loss += outcome.loss
            right += outcome.right
        return _mean(loss, right, self._objective.count(found))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: the adapter was loaded with the model."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._saved is None:
            return
        self._saved.restore_optimizer(self.optimizer)
        # Not `self.step`: transformers before 5.3 reads its own state only after this.
        step = self._saved.step
        rate = self._schedule.learning_rate * self._schedule.share(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.lr_scheduler.last_epoch = step

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._saved is not None:
            self._saved.restore_random()


class _AfterStep(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Calls a function at the end of each step, and stops if it returns True."""

    def __init__(self, training: Training, after_step: Callable[[Training], bool]) -> None:
        self._training = training
        self._after_step = after_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Implement TrainerCallback."""
        del args, state
        if self._after_step(self._training):
            control.should_training_stop = True


def _mean(loss: torch.Tensor, right: torch.Tensor, count: int) -> Measured:
    measured = Measured(float(loss) / count, float(right) / count)
    if not math.isfinite(measured.loss):
        raise diverged()
    return measured
