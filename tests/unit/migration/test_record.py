"""Recording, with a target that loses uploads and interruptions at every step: each answer once, and none unsaid."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import openai_source
from tests.fakes.clock import HandClock
from tests.fakes.memory_target import MemoryTarget, nothing
from tests.fakes.openai_source import KEY, OpenAI, Refusal, rate_limited
from tests.support import migrations, servers
from tests.support.migrations import FIRST, SECOND

from tunewarden.clock import Clock, SystemClock
from tunewarden.errors import Error, Kind
from tunewarden.migration import addresses, prompts, state
from tunewarden.migration.record import ROUNDS_MAX, Outcome, Recording, Work, learned_from
from tunewarden.migration.source import Source
from tunewarden.migration.state import State
from tunewarden.migration.target import UploadGone

PROMPTS_FILE = "file-of-prompts"
COUNT = 4


@dataclass
class Nth:
    """Raises `error` at the n-th of the steps that it counts."""

    n: int
    error: type[BaseException]
    counted: str = ""
    count: int = 0

    def __call__(self, step: str) -> None:
        if self.counted in step:
            self.count += 1
            if self.count == self.n:
                raise self.error


class SteppedState(State):
    """A state whose writes are steps too."""

    step: Callable[[str], None] = staticmethod(nothing)

    def write(self, name: str, content: dict[str, Any], *, indent: int | None = None) -> Path:
        self.step("before a note")
        written = super().write(name, content, indent=indent)
        self.step("after a note")
        return written


@pytest.fixture
def has() -> Iterator[OpenAI]:
    has = OpenAI()
    has.models = [FIRST, SECOND]
    with openai_source.serving(has):
        yield has
        has.is_answering.set()


def _recording(
    has: OpenAI,
    directory: Path,
    target: MemoryTarget,
    *,
    step: Callable[[str], None] = nothing,
    concurrency: int = 1,
    clock: Clock | None = None,
) -> Recording:
    address = addresses.parse(has.url)
    clock = clock or SystemClock()
    noted = SteppedState(directory, address.url)
    noted.step = step
    source = Source(address, KEY, clock=clock, say=nothing)
    return Recording(source, target, noted, clock, 100, concurrency)


def _work(*models: str) -> list[Work]:
    asked = prompts.read(migrations.chats(COUNT), last=COUNT)
    return [Work(model, PROMPTS_FILE, asked) for model in models]


def _lines(target: MemoryTarget) -> list[int]:
    return sorted(one["line"] for one in target.answers())


def test_wherever_it_is_interrupted_each_question_is_asked_once(
    has: OpenAI, tmp_path: Path
) -> None:
    for n in range(1, 200):
        directory = tmp_path / str(n)
        directory.mkdir()
        has.answered.clear()
        target = MemoryTarget()
        step = Nth(n, KeyboardInterrupt)
        target.step = step
        recording = _recording(has, directory, target, step=step)
        with suppress(KeyboardInterrupt):
            recording.run(_work(FIRST), nothing, nothing)
        target.step = nothing
        _recording(has, directory, target).run(_work(FIRST), nothing, nothing)
        assert _lines(target) == [1, 2, 3, 4], f"interrupted at step {n}"
        assert set(has.answered.values()) == {1}, f"interrupted at step {n}"
        noted = json.loads(next(directory.glob("answers-*.json")).read_text())
        assert len(noted["files"]) == len(set(noted["files"])), f"interrupted at step {n}"
        if step.count < n:
            break
    assert n > 3 * COUNT, "every step of every answer"


def test_wherenothing_can_be_noted_any_more_no_answer_is_in_two_files(
    has: OpenAI, tmp_path: Path
) -> None:
    """A full disk. What came then is asked again, once."""

    class Full:
        count = 0

        def __call__(self, step: str) -> None:
            self.count += step == "before a note"
            if self.count > 3:
                raise Error(Kind.UNAVAILABLE, "No space left on device.")

    target = MemoryTarget()
    with pytest.raises(Error, match="No space"):
        _recording(has, tmp_path, target, step=Full()).run(_work(FIRST), nothing, nothing)
    _recording(has, tmp_path, target).run(_work(FIRST), nothing, nothing)
    assert _lines(target) == [1, 2, 3, 4]
    assert sum(has.answered.values()) <= COUNT + 1


def test_an_interruption_ends_the_wait_for_a_limit(has: OpenAI, tmp_path: Path) -> None:
    has.refusals.extend([None, rate_limited(retry_after="20")])
    shown = 0

    def interrupted(*_: object) -> None:
        nonlocal shown
        shown += 1
        if shown == 2:  # one is answered, and the next one refused or on its way
            raise KeyboardInterrupt

    target = MemoryTarget()
    with pytest.raises(KeyboardInterrupt):
        _recording(has, tmp_path, target, concurrency=2).run(_work(FIRST), interrupted, nothing)
    # The limit was not waited for: nothing was asked when it would have ended.
    assert len(has.chats()) <= 3
    assert _lines(target)
    _recording(has, tmp_path, target).run(_work(FIRST), nothing, nothing)
    assert set(has.answered.values()) == {1}


def test_a_second_interruption_leaves_what_is_on_its_way(has: OpenAI, tmp_path: Path) -> None:
    has.is_answering.clear()
    never = threading.Timer(30, has.is_answering.set)
    never.start()
    said: list[str] = []

    def interrupted(*_: object) -> None:
        servers.wait_until(lambda: len(has.chats()) == 2, "both are asked")
        raise KeyboardInterrupt

    def say(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _recording(has, tmp_path, MemoryTarget(), concurrency=2).run(_work(FIRST), interrupted, say)
    assert not has.is_answering.is_set(), "it ended before the source had answered"
    never.cancel()
    assert said == ["Waiting for answers that are on their way; Ctrl-C gives them up."]


def test_answers_that_are_lost_while_it_runs_are_said_and_asked_again(
    has: OpenAI, tmp_path: Path
) -> None:
    target, said = MemoryTarget(), list[str]()
    target.step = Nth(3, UploadGone, "before a part")
    outcome = _recording(has, tmp_path, target).run(_work(FIRST), nothing, said.append)
    assert said == [f"2 answers of {FIRST} have expired unfinished; they are asked for again."]
    assert (outcome.lost, outcome.answered) == (2, {FIRST: COUNT})
    assert _lines(target) == [1, 2, 3, 4]


def test_a_target_that_does_not_answer_for_a_while_is_waited_for(
    has: OpenAI, tmp_path: Path
) -> None:
    """What is answered and not sealed yet would be asked for again."""
    target, said = MemoryTarget(), list[str]()
    left = {"before an upload": 1, "after a part": 2}

    def step(name: str) -> None:
        if left.get(name):
            left[name] -= 1
            raise Error(Kind.UNAVAILABLE, "No server answers.")

    target.step = step
    recording = _recording(has, tmp_path, target, clock=HandClock())
    recording.run(_work(FIRST), nothing, said.append)
    assert _lines(target) == [1, 2, 3, 4]
    assert set(has.answered.values()) == {1}
    assert "The target server does not answer; waiting 2 s." in said


def test_answers_that_are_lost_again_and_again_end_it(has: OpenAI, tmp_path: Path) -> None:
    target = MemoryTarget()

    def step(name: str) -> None:
        if name == "before the completion":
            raise UploadGone

    target.step = step
    with pytest.raises(Error, match=f"{COUNT} answers of {FIRST} are missing"):
        _recording(has, tmp_path, target).run(_work(FIRST), nothing, nothing)
    assert len(has.chats()) == ROUNDS_MAX * COUNT


def _run(has: OpenAI, directory: Path) -> tuple[Outcome, list[str], MemoryTarget]:
    target, said = MemoryTarget(), list[str]()
    outcome = _recording(has, directory, target).run(_work(FIRST, SECOND), nothing, said.append)
    return outcome, said, target


def test_refusals_are_not_counted_as_answers(has: OpenAI, tmp_path: Path) -> None:
    has.refusals.extend([Refusal(400, "Flagged", None, "messages"), None, None])
    outcome, _, target = _run(has, tmp_path)
    assert outcome.answered == {FIRST: COUNT - 1, SECOND: COUNT}
    assert outcome.refused == {FIRST: 1, SECOND: 0}
    assert len(target.answers()) == 2 * COUNT
    # And so says the state, later.
    again = _recording(has, tmp_path, target).run(_work(FIRST), nothing, nothing)
    assert (again.answered, again.refused) == ({FIRST: COUNT - 1}, {FIRST: 1})


def test_a_model_without_chat_completions_is_not_said_to_be_gone(
    has: OpenAI, tmp_path: Path
) -> None:
    said = "This is not a chat model and thus not supported in the v1/chat/completions endpoint."
    has.refusals.append(Refusal(404, said, None, "model"))
    outcome, shown, _ = _run(has, tmp_path)
    assert (outcome.gone, outcome.no_chats) == ([], [FIRST])
    assert shown == [f"{FIRST} answers no chat completions at the source (status 404)."]
    assert outcome.answered == {FIRST: 0, SECOND: COUNT}


def test_errors_of_the_network_in_between_are_tried_again(has: OpenAI, tmp_path: Path) -> None:
    has.refusals.append(Refusal(520, "Web server is returning an unknown error"))
    outcome, _, _ = _run(has, tmp_path)
    assert outcome.answered == {FIRST: COUNT, SECOND: COUNT}


def test_what_is_no_chat_completion_is_no_answer(
    has: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(has, "answer", lambda _: {"object": "welcome"})
    with pytest.raises(Error, match="OpenAI's API"):
        _run(has, tmp_path)
    assert not list(tmp_path.glob("answers-*.json"))
    with state.opened(tmp_path, has.url) as opened:
        assert opened.read("answers") is None


def test_a_model_learned_from_every_file_of_its_chain() -> None:
    jobs = [
        {"id": "c", "training_file": "third", "continues": "b"},
        {"id": "b", "training_file": "second", "continues": "a"},
        {"id": "a", "training_file": "first", "continues": None},
        {"id": "circle", "training_file": "own", "continues": "circle"},
    ]

    def files(job: str | None) -> list[str]:
        return learned_from({"jobs": jobs}, {"job": job})

    assert files("c") == ["third", "second", "first"]
    assert files("circle") == ["own"]
    assert files("unknown") == files(None) == []
