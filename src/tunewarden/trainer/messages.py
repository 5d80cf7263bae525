"""What the runner and the trainer tell each other: JSON, one message a line, UTF-8, on one socket.

`python -m tunewarden.trainer --control FD`: FD is one end of a Unix stream socket pair. The runner
writes a Task first. Then the trainer writes, in this order:

- Tokens, for the training file and then for the validation file, if there is one. They are read
  from pipes, each to its end; plain data never is in a file.
- Plan, with every "auto" resolved.
- Progress, at least each 2 seconds from the end of the first step on, at most 4 a second. A long step
  repeats the last one.
- at the end of each epoch: Checkpoint (a directory with `adapter_config.json` and
  `adapter_model.safetensors`), then State (a flat directory: what a later Task's `resume` needs).
  State also each `state_seconds`, at the end of a step.
- Finished, with the adapter as in a checkpoint and the results: CSV with a row for each step.

Checkpoint, State and Finished wait for a Taken, and then their files are gone. A killed trainer that
is resumed tells Tokens and Plan again, and goes on after the State's step: a Checkpoint whose State
was not taken comes a second time. Pause may come at any time: at the end of the next step come a
State and Paused, and the process ends with 0, as after Finished. What fails tells Failed and ends
with 1. The end of the socket ends the process at once.

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
    """What the job asks for; `plan.py` resolves "auto"."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    beta: float | Auto = "auto"


class Task(msgspec.Struct, frozen=True, tag_field="type", tag="task", kw_only=True):
    """What to train. `start` is a LoRA to go on from, `resume` an earlier State of this same task.

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


class Taken(msgspec.Struct, frozen=True, tag_field="type", tag="taken"):
    """The runner has what was offered last; its files may go."""


class Pause(msgspec.Struct, frozen=True, tag_field="type", tag="pause"):
    """End soon, in a way that can be resumed."""


class Tokens(msgspec.Struct, frozen=True, tag_field="type", tag="tokens"):
    """How large a file is. `truncated` examples were longer than the base's context.

    `examples` counts those that are learned from: one whose answers were cut off wholly is not, and
    counts as truncated. Lines are counted from 1; the first 20 truncated ones are named.
    """

    file: File
    examples: int
    tokens: int
    learned_tokens: int
    truncated_lines: tuple[int, ...] = ()
    truncated: int = 0


class Plan(msgspec.Struct, frozen=True, tag_field="type", tag="plan"):
    """The hyperparameters that are used, and how many steps they make."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None
    steps: int


class Progress(msgspec.Struct, frozen=True, tag_field="type", tag="progress"):
    """How far it is. `epoch` counts from 0 as a fraction; `trained_tokens` is up to now."""

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
    """All that it takes to go on after this step."""

    step: int
    directory: str


class Finished(msgspec.Struct, frozen=True, tag_field="type", tag="finished"):
    """The adapter, and the file with the results."""

    directory: str
    results: str
    trained_tokens: int


class Paused(msgspec.Struct, frozen=True, tag_field="type", tag="paused"):
    """It ends now; the State of this step was taken."""

    step: int


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="failed"):
    """It ends now. `message` says what to do, and holds nothing of the data."""

    code: str
    message: str
    param: str | None = None


Offer = Checkpoint | State | Finished
Told = Tokens | Plan | Progress | Offer | Paused | Failed
TASK = msgspec.json.Decoder(Task)
ANSWER: msgspec.json.Decoder[Taken | Pause] = msgspec.json.Decoder(Taken | Pause)


def encode(message: Told) -> bytes:
    """Return one line."""
    return msgspec.json.encode(message) + b"\n"
