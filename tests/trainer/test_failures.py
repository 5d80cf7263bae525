"""What cannot be trained is told in words, without its data; and no trainer outlives its runner."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import torch
from tests.support import demo_models
from tests.trainer import data
from tests.trainer.driver import running

from tunewarden.clock import SystemClock
from tunewarden.logs import trace
from tunewarden.trainer import failures
from tunewarden.trainer.adapters import load_adapter
from tunewarden.trainer.base import (
    context,
    load_config,
    load_model,
    load_tokenizer,
    machine_for,
)
from tunewarden.trainer.chats import Chats
from tunewarden.trainer.control import PROGRESS_SECONDS, REPEAT_SECONDS, Control, Reporter
from tunewarden.trainer.examples import Dataset, read
from tunewarden.trainer.failures import Failure
from tunewarden.trainer.messages import Method, Progress
from tunewarden.trainer.results import Measured, Results, StepNumbers

SECRET = "the secret of line three"
GOOD = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'
PAIR = (
    b'{"input":{"messages":[{"role":"user","content":"a"}]},'
    b'"preferred_output":[{"role":"assistant","content":"b"}],'
    b'"non_preferred_output":[{"role":"assistant","content":"c"}]}'
)


@pytest.fixture(scope="module")
def chats() -> Chats:
    return Chats(load_tokenizer(demo_models.base_dir()))


def of_pipe(chats: Chats, text: bytes, method: Method = "supervised", tokens: int = 64) -> Dataset:
    """What is read of a pipe."""
    reading_end, writing_end = os.pipe()
    os.write(writing_end, text)
    os.close(writing_end)
    return read(reading_end, "training", method, chats, tokens)


def test_a_broken_line_is_named_and_nothing_of_it_is_told(tmp_path: Path) -> None:
    lines = [*data.chats(2), f'{{"messages": "{SECRET}"}}', *data.chats(2)]
    with running(tmp_path, lines) as runner:
        last = runner.to_end()
        output = runner.output()
    assert runner.process.returncode == 1
    assert (last["type"], last["code"]) == ("failed", "invalid_training_file")
    assert last["param"] == "training_file"
    assert last["message"].startswith("Line 3 of the training file ")
    assert SECRET not in f"{runner.messages}{output}"
    assert "invalid_training_file" in output, "where it came from is on standard error"


def test_numbers_that_are_not_finite_end_the_run_at_once(tmp_path: Path) -> None:
    asked = {"learning_rate_multiplier": 1e25, "n_epochs": 50}
    with running(tmp_path, data.chats(20), hyperparameters=asked) as runner:
        last = runner.to_end()
        assert list(runner.scratch.iterdir()) == []
    assert (last["type"], last["code"]) == ("failed", "training_diverged")
    assert last["param"] == "hyperparameters"
    assert "learning_rate_multiplier" in last["message"]
    assert runner.process.returncode == 1
    assert max((message["step"] for message in runner.of("progress")), default=0) < 10


def test_a_model_that_only_guesses_any_more_has_diverged() -> None:
    def of(*losses: float) -> Results:
        return Results([StepNumbers(at, Measured(loss, 0.0)) for at, loss in enumerate(losses, 1)])

    guess = math.log(1024)
    assert of(3.9, *20 * [6.93147]).is_guessing(guess)
    assert not of(*19 * [6.93147]).is_guessing(guess)
    assert not of(*19 * [7.5], 6.0, *19 * [7.5]).is_guessing(guess)
    assert not of(*50 * [99.0]).is_guessing(math.inf)


def test_a_trainer_ends_with_its_runner(tmp_path: Path) -> None:
    with running(tmp_path, data.chats(4)) as runner:
        runner.until("tokens")
        runner.hang_up()
        assert runner.process.wait(10) == 1


def test_a_base_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    machine = machine_for(tmp_path)
    for load in (
        load_config,
        load_tokenizer,
        lambda path: load_model(path, load_config(demo_models.base_dir()), machine),
    ):
        with pytest.raises(Failure) as caught:
            load(tmp_path)
        assert caught.value.code == "invalid_base"
        assert str(tmp_path) not in caught.value.message


def test_a_model_to_go_on_from_that_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="invalid_start_model"):
        load_adapter(None, tmp_path)


@pytest.mark.parametrize(
    ("line", "method"),
    [
        (b"{", "supervised"),
        (b"[]", "supervised"),
        (b'"\xff"', "supervised"),
        (b'{"messages":[]}', "supervised"),
        (b'{"messages":[{"content":"no role"}]}', "supervised"),
        (b'{"messages":[{"role":"user","content":"no answer"}]}', "supervised"),
        (GOOD.replace(b'"b"', b'[{"type":"image_url"}]'), "supervised"),
        (GOOD.replace(b'"b"', b"7"), "supervised"),
        (GOOD.replace(b'"content":"b"', b'"tool_calls":[{}]'), "supervised"),
        (PAIR, "supervised"),
        (GOOD, "dpo"),
        (PAIR.replace(b'[{"role":"assistant","content":"b"}]', b"[]"), "dpo"),
        (PAIR.replace(b'"assistant"', b'"user"'), "dpo"),
    ],
)
def test_whatever_is_wrong_with_a_line_its_number_is_told(
    chats: Chats, line: bytes, method: Method
) -> None:
    good = GOOD if method == "supervised" else PAIR
    with pytest.raises(Failure) as caught:
        of_pipe(chats, b"\n".join([good, b"", line, good]), method)
    assert caught.value.code == "invalid_training_file"
    assert "Line 3 " in caught.value.message


def test_blank_lines_and_a_mark_at_the_beginning_are_no_examples(chats: Chats) -> None:
    dataset = of_pipe(chats, b"\xef\xbb\xbf" + GOOD + b"\r\n\n  \n" + GOOD)
    assert dataset.tokens().examples == 2


def test_what_is_longer_than_the_context_is_cut_and_counted(chats: Chats) -> None:
    long = GOOD.replace(b'"b"', b'"' + b"b " * 99 + b'"')
    unlearnable = GOOD.replace(b'"a"', b'"' + b"a " * 99 + b'"')
    dataset = of_pipe(chats, b"\n".join([GOOD, long, unlearnable]), tokens=16)
    told = dataset.tokens()
    assert (told.examples, told.truncated, told.truncated_lines) == (2, 2, (2, 3))
    assert max(len(row.ids) for example in dataset.examples for row in example) == 16
    with pytest.raises(Failure, match="invalid_training_file"):
        of_pipe(chats, unlearnable, tokens=16)


def test_the_context_is_the_base_s() -> None:
    assert context(load_config(demo_models.base_dir())) == 2048


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_told_as_that(error: BaseException) -> None:
    told = failures.failure_of(error)
    assert told.code == "out_of_memory"
    assert "smaller batch_size" in told.message


def test_the_text_of_an_unexpected_error_is_told_to_nobody() -> None:
    with pytest.raises(ValueError, match=SECRET) as caught:
        int_of({})
    place = trace(caught.value, caught.value.__traceback__)
    told = failures.failure_of(caught.value)
    assert SECRET not in f"{told} {place}"
    assert place.index("KeyError") < place.index("ValueError")
    assert "test_failures.py" in place
    assert failures.failure_of(msgspec.DecodeError("x")).code == "internal_error"


def int_of(values: dict[str, int]) -> int:
    """Fail as libraries do: with the data in the text."""
    try:
        return values[SECRET]
    except KeyError as error:
        raise ValueError(SECRET) from error


def test_a_long_step_repeats_the_last_progress() -> None:
    ours, theirs = socket.socketpair()
    told: list[int] = []

    def listen() -> None:
        with ours.makefile("rb") as lines:
            told.extend(json.loads(line)["step"] for line in lines)

    listening = threading.Thread(target=listen)
    listening.start()
    began = time.monotonic()
    control = Control(os.dup(theirs.fileno()))
    with Reporter(control, SystemClock()) as reporter:
        for step in range(200):
            reporter.note(progress(step))
            time.sleep(0.005)
        time.sleep(2.5 * REPEAT_SECONDS)
    seconds = time.monotonic() - began
    control.close()
    theirs.close()
    listening.join()
    ours.close()
    assert told == sorted(told)
    assert 2 <= told.count(199) <= 2 + seconds / REPEAT_SECONDS, "once, and again"
    assert len(told) <= 2 + seconds / PROGRESS_SECONDS


def progress(step: int) -> Progress:
    """Some progress."""
    return Progress(step, 200, 0.0, 1.0, 0.5, None, None, 1e-3, 10, 1.0)


def test_what_native_code_writes_to_standard_error_goes_nowhere() -> None:
    program = (
        "import os, sys\n"
        "from tunewarden.trainer.__main__ import _quiet\n"
        "kept = _quiet()\n"
        f"os.write(2, b'thread panicked at {SECRET}')\n"
        f"print('{SECRET}', file=sys.stderr)\n"
        "os.write(kept, b'ours')\n"
        "os.kill(os.getpid(), 11)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stderr.startswith("ours")
    assert "Segmentation fault" in ended.stderr
    assert SECRET not in ended.stderr
