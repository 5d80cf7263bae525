"""`python -m tests.fakes.fake_trainer --control FD`: speaks the trainer's protocol, and learns nothing.

What it hands over is a valid adapter of the tests' tiny base. The environment says how it shall go:
FAKE_TRAINER is JSON with `steps`, `step_seconds`, and what shall go wrong (see `Plan`).
"""

import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
from tests.support import bases

from tunewarden import processes
from tunewarden.trainer import messages
from tunewarden.trainer.messages import Task, TrainerMessage

CANARY = "fake-trainer-weights"


class Plan(msgspec.Struct, frozen=True):
    """How it shall go. Steps are counted from 1; 0 is never."""

    steps: int = 6
    step_seconds: float = 0.02
    state_each: int = 2
    checkpoints: tuple[int, ...] = (3, 6)
    # It kills itself before this step, in `dies_each` of its lives: in all, or in the first.
    dies_before: int = 0
    dies_in_first_life_only: bool = False
    fails: tuple[str, str, str] | None = None
    exit_status: int = 0
    bad_adapter: bool = False
    truncated_lines: tuple[int, ...] = ()
    ignores_pause: bool = False


class Ended(Exception):
    """It was asked to pause."""


class Trainer:
    """One life."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._received = b""
        self._plan = msgspec.json.decode(os.environ.get("FAKE_TRAINER", "{}"), type=Plan)
        self._task: Task = messages.TASK.decode(self._line())
        self._work = Path(self._task.scratch)
        self._is_pausing = False

    def run(self) -> int:
        plan, task = self._plan, self._task
        if plan.exit_status:
            print("the last words of the fake", file=sys.stderr)
            return plan.exit_status
        for file, descriptor in (("training", task.training), ("validation", task.validation)):
            if descriptor is not None:
                self._count(file, descriptor)
        if plan.fails is not None:
            self._send(messages.Failed(*plan.fails))
            return 1
        self._send(messages.Plan(2, 1, 1.0, None, plan.steps))
        step = 0
        if task.resume is not None:
            step = json.loads((Path(task.resume) / "state.json").read_text())["step"]
        try:
            while step < plan.steps:
                step += 1
                self._step(step)
        except Ended:
            self._offer_state(step)
            self._send(messages.Paused(step))
            return 0
        self._finish()
        return 0

    def _step(self, step: int) -> None:
        plan, task = self._plan, self._task
        is_first_life = task.resume is None
        if step == plan.dies_before and (is_first_life or not plan.dies_in_first_life_only):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(plan.step_seconds)
        self._send(
            messages.Progress(
                step, plan.steps, 2 * step / plan.steps, 1 / step, 0.5, None, None, 1e-4, step, 0.1
            )
        )
        if step in plan.checkpoints:
            self._offer(
                messages.Checkpoint(step, self._adapter(f"ckpt-{step}"), {"train_loss": 1.0})
            )
        if step % plan.state_each == 0:
            self._offer_state(step)
        self._listen(0)
        if self._is_pausing and not plan.ignores_pause:
            raise Ended

    def _finish(self) -> None:
        results = self._work / "results.csv"
        results.write_text("step,train_loss\n1,1.0\n")
        told = messages.Finished(self._adapter("final"), str(results), 123)
        self._offer(told)

    def _adapter(self, name: str) -> str:
        adapter = bases.adapter(CANARY)
        if self._plan.bad_adapter:
            adapter = bases.Adapter(adapter.config, adapter.weights[:-4])
        return str(adapter.write(self._work / name))

    def _offer_state(self, step: int) -> None:
        directory = self._work / f"state-{step}"
        directory.mkdir()
        (directory / "state.json").write_text(json.dumps({"step": step}))
        (directory / "optimizer.bin").write_bytes(b"optimizer-canary" * 1000)
        self._offer(messages.State(step, str(directory)))

    def _count(self, file: str, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            examples = sum(1 for line in stream if line.strip())
        lines = self._plan.truncated_lines
        assert file in {"training", "validation"}
        told = messages.Tokens(file, examples, 10 * examples, 5 * examples, lines, len(lines))  # type: ignore[arg-type]  # checked above
        self._send(told)

    def _send(self, message: TrainerMessage) -> None:
        self._control.sendall(messages.encode(message))

    def _offer(self, message: messages.Offer) -> None:
        self._send(message)
        while not self._listen(None):
            pass

    def _listen(self, seconds: float | None) -> bool:
        """Read one answer; return whether it was that something was taken."""
        if b"\n" not in self._received and not select.select([self._control], [], [], seconds)[0]:
            return False
        answer = messages.ANSWER.decode(self._line())
        self._is_pausing = self._is_pausing or isinstance(answer, messages.Pause)
        return isinstance(answer, messages.Acknowledged)

    def _line(self) -> bytes:
        while b"\n" not in self._received:
            received = self._control.recv(65536)
            if not received:
                os._exit(1)
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line


if __name__ == "__main__":
    processes.die_with(os.getppid())
    sys.exit(Trainer(socket.socket(fileno=int(sys.argv[2]))).run())
