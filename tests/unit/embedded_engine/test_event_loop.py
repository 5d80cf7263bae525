"""However much a response names, no turn of the engine's event loop takes long: other streams take turns with it.

Measured by the processor time of the loop's thread, which is the same on a busy machine.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from typing import Any, cast

import msgspec
import pytest
import torch
from tests.support import demo_models

from tunewarden.clock import SystemClock
from tunewarden.embedded_engine import http
from tunewarden.embedded_engine.answers import Answer
from tunewarden.embedded_engine.engine import Served
from tunewarden.embedded_engine.generation import Generation
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.requests import parse_chat, parse_completion
from tunewarden.embedded_engine.sampling import Choice
from tunewarden.embedded_engine.sequences import Delta, Entry, Finish

TURN_SECONDS = 0.010
CHOICES, TOKENS, TOP = 128, 20, 20
BODY = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Hello"}],
    "n": CHOICES,
    "logprobs": True,
    "top_logprobs": TOP,
}


class OnlyBase:
    """What a Generation reads of a served base, when nothing runs."""

    def __init__(self, base: Base) -> None:
        self.base = base


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    base = Base(demo_models.base_dir())
    gc.freeze()  # as the engine does
    yield base
    gc.unfreeze()


def _everything() -> list[Delta]:
    """Return all that a slow client did not read yet."""
    deltas = []
    for at in range(TOKENS):
        token = 300 + at
        top = tuple((token + one, -0.5 - one) for one in range(TOP))
        entries = [Entry(Choice(token, -0.25, top), at)]
        finish = Finish.LENGTH if at == TOKENS - 1 else None
        deltas += [Delta(index, "a", entries, at + 1, finish) for index in range(CHOICES)]
    return deltas


def _answering(base: Base, *, stream: bool) -> tuple[Generation, Answer]:
    ask = parse_chat(msgspec.json.encode({**BODY, "stream": stream}))
    generation = Generation(ask, cast("Served", OnlyBase(base)), None)
    generation.prompts = [[1]]
    generation._unfinished = CHOICES
    for delta in _everything():
        generation.receive(delta)
    return generation, Answer(ask, generation.prompts, base, SystemClock())


async def _longest_turn(work: Awaitable[None]) -> float:
    """Run it; return the most processor seconds that this thread took between two turns of the loop."""
    task = asyncio.ensure_future(work)
    longest = 0.0
    while not task.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    await task
    return longest


def _least_disturbed(run: Callable[[], Coroutine[Any, Any, float]]) -> float:
    """Return the least of up to three runs: a busy machine empties caches, which takes processor time too."""
    longest = float("inf")
    for _ in range(3):
        longest = min(longest, asyncio.run(run()))
        if longest < TURN_SECONDS:
            break
    return longest


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_response_takes_many_short_turns(base: Base, stream: bool) -> None:
    body: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        body.append(message.get("body", b""))

    how: Callable[..., Awaitable[None]] = http.send_stream if stream else http.send_whole

    async def run() -> float:
        body.clear()
        generation, answer = _answering(base, stream=stream)
        return await _longest_turn(how(send, generation, answer))

    longest = _least_disturbed(run)
    print(f"{sum(map(len, body))} bytes, longest turn {longest * 1000:.2f} ms")
    assert longest < TURN_SECONDS
    if not stream:
        choices = msgspec.json.decode(b"".join(body))["choices"]
        assert [len(one["logprobs"]["content"]) for one in choices] == [TOKENS] * CHOICES
        assert len(choices[0]["logprobs"]["content"][0]["top_logprobs"]) == TOP


def test_control_a_response_in_one_turn_holds_the_loop(base: Base) -> None:
    _, answer = _answering(base, stream=False)
    began = time.thread_time()
    answer.add(_everything())
    b"".join(answer.whole())
    assert time.thread_time() - began > TURN_SECONDS


@pytest.mark.parametrize("stream", [False, True])
def test_likelihoods_of_long_prompts_take_many_short_turns(base: Base, stream: bool) -> None:
    tokens, prompts = [60 + at % 900 for at in range(1024)], 16
    body: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        body.append(message.get("body", b""))

    how: Callable[..., Awaitable[None]] = http.send_stream if stream else http.send_whole
    asked = {"model": "demo", "prompt": [tokens] * prompts, "max_tokens": 0, "logprobs": 5}
    ask = parse_completion(msgspec.json.encode({**asked, "echo": True, "stream": stream}))

    async def run() -> float:
        body.clear()
        generation = Generation(ask, cast("Served", OnlyBase(base)), None)
        generation.prompts = [tokens] * prompts
        generation._unfinished = prompts
        for index in range(prompts):
            row = generation._row(tokens, index)
            row.note_prompt(torch.randn(len(tokens), base.vocabulary), 0)
            for delta in (*row.prompt_read(), Delta(index, "", [], 0, Finish.LENGTH)):
                generation.receive(delta)
        answer = Answer(ask, generation.prompts, base, SystemClock())
        return await _longest_turn(how(send, generation, answer))

    longest = _least_disturbed(run)
    print(f"{sum(map(len, body))} bytes, longest turn {longest * 1000:.2f} ms")
    assert longest < TURN_SECONDS
    if not stream:
        found = msgspec.json.decode(b"".join(body))["choices"]
        assert [len(one["logprobs"]["token_logprobs"]) for one in found] == [1024] * prompts
        assert {one["logprobs"]["token_logprobs"][0] for one in found} == {None}


@pytest.mark.parametrize("stream", [False, True])
def test_many_prompts_and_choices_take_many_short_turns(base: Base, stream: bool) -> None:
    """All choices end in the same step: nobody read meanwhile."""
    prompts, choices = 2048, 16
    body: list[bytes] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        body.append(message.get("body", b""))

    how: Callable[..., Awaitable[None]] = http.send_stream if stream else http.send_whole
    asked = {"model": "demo", "prompt": [[60] * 20] * prompts, "n": choices, "max_tokens": 1}
    ask = parse_completion(msgspec.json.encode({**asked, "echo": True, "stream": stream}))

    async def run() -> float:
        body.clear()
        generation = Generation(ask, cast("Served", OnlyBase(base)), None)
        generation.prompts = [[60] * 20] * prompts
        generation._unfinished = prompts * choices
        for index in range(prompts * choices):
            generation.receive(Delta(index, "a", [], 1, Finish.LENGTH))
        answer = Answer(ask, generation.prompts, base, SystemClock())
        return await _longest_turn(how(send, generation, answer))

    longest = _least_disturbed(run)
    print(f"{sum(map(len, body))} bytes, longest turn {longest * 1000:.2f} ms")
    assert longest < TURN_SECONDS
    if not stream:
        found = msgspec.json.decode(b"".join(body))["choices"]
        assert [choice["index"] for choice in found] == list(range(prompts * choices))
