"""The protocol between runner and trainer: JSON Lines in UTF-8, on one socket.

`python -m tunewarden.trainer --control FD`: FD is one end of a Unix stream socket pair. The runner
writes a Task first. Then the trainer writes, in this order:

- Tokens, for the training file and then for the validation file, if there is one. They are read
  from pipes, each to its end; plaintext is never in a file.
- Plan, with every "auto" resolved.
- Progress, at least each 2 seconds from the end of the first step on, at most 4 a second. A long step
  repeats the last one.
- at the end of each epoch: Checkpoint (a directory with `adapter_config.json` and
  `adapter_model.safetensors`), then State (a flat directory: what a later Task's `resume` needs).
  State also each `state_seconds`, at the end of a step.
- Finished, with the adapter as in a checkpoint and the results: CSV with a row for each step.

Checkpoint, State and Finished wait for an `Acknowledged`, and then their files are gone. A killed trainer that
is resumed sends Tokens and Plan again, and continues after the State's step: a Checkpoint whose State
was not acknowledged comes a second time. Pause may come at any time: at the end of the next step come a
State and Paused, and the process exits with 0, as after Finished. A failure sends Failed and exits
with 1. Closing the socket ends the process at once.

Loss is in nats a learned token, accuracy the share of learned tokens that were the likeliest. For
`dpo` both are per pair: the DPO loss, and the share of pairs whose preferred answer has the higher
reward. Numbers of the validation file are of one batch, measured now and then, so the last known
are repeated; `full_valid_*` are of the whole file.
"""

from typing import Literal

import msgspec

Method = Literal["supervised", "dpo"]
File = Literal["training", "validation"]
Auto = Literal["auto"]


class Hyperparameters(msgspec.Struct, frozen=True):
    """The requested hyperparameters; `schedule.py` resolves "auto"."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    beta: float | Auto = "auto"


class Task(msgspec.Struct, frozen=True, tag_field="type", tag="task", kw_only=True):
    """The task. `start` is a LoRA to continue from, `resume` an earlier State of this task.

    `training` and `validation` are descriptors of pipes with JSON lines. All that is written goes below
    `scratch`, an empty directory in memory. `threads` 0 means all cores but one.
    """

    base: str
    method: Method
    start: str | None = None
    resume: str | None = None
    training: int
    validation: int | None = None
    scratch: str
    seed: int
    hyperparameters: Hyperparameters
    rank: int
    threads: int = 0
    state_seconds: float


class Acknowledged(msgspec.Struct, frozen=True, tag_field="type", tag="acknowledged"):
    """Acknowledges the last offer; its files may be removed."""


class Pause(msgspec.Struct, frozen=True, tag_field="type", tag="pause"):
    """Asks the trainer to save its state and end."""


class Tokens(msgspec.Struct, frozen=True, tag_field="type", tag="tokens"):
    """The size of a file. `truncated` examples were longer than the base's context.

    `examples` counts those that are trained on: one whose answers were truncated completely is not, and
    counts as truncated. Lines are counted from 1; the first 20 truncated ones are named.
    """

    file: File
    examples: int
    tokens: int
    learned_tokens: int
    truncated_lines: tuple[int, ...] = ()
    truncated: int = 0


class Plan(msgspec.Struct, frozen=True, tag_field="type", tag="plan"):
    """The resolved hyperparameters, and the number of steps."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None
    steps: int


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """Progress. `epoch` counts from 0 as a fraction; `trained_tokens` is so far."""

    step: int
    steps: int
    epoch: float
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    learning_rate: float
    trained_tokens: int
    seconds_left: float


class Checkpoint(msgspec.Struct, frozen=True, tag_field="type", tag="checkpoint"):
    """An adapter at the end of an epoch, with its metrics by OpenAI's names."""

    step: int
    directory: str
    metrics: dict[str, float]


class State(msgspec.Struct, frozen=True, tag_field="type", tag="state"):
    """The state for resuming after this step."""

    step: int
    directory: str


class Finished(msgspec.Struct, frozen=True, tag_field="type", tag="finished"):
    """The adapter, and the file with the results."""

    directory: str
    results: str
    trained_tokens: int


class Paused(msgspec.Struct, frozen=True, tag_field="type", tag="paused"):
    """The trainer ends now; the State of this step was acknowledged."""

    step: int


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="failed"):
    """The trainer ends now. `message` says what to do, and quotes no data."""

    code: str
    message: str
    param: str | None = None


Offer = Checkpoint | State | Finished
TrainerMessage = Tokens | Plan | Progress | Offer | Paused | Failed
TASK = msgspec.json.Decoder(Task)
ANSWER: msgspec.json.Decoder[Acknowledged | Pause] = msgspec.json.Decoder(Acknowledged | Pause)


def encode(message: TrainerMessage) -> bytes:
    """Return one line."""
    return msgspec.json.encode(message) + b"\n"
