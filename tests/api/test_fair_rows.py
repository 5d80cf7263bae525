"""A request with many choices or prompts beside a chat of the same key, on the real engine, through the stock SDK."""

import threading
from collections.abc import Iterator
from typing import Any, Self

import openai
import pytest
from tests.support import engines
from tests.support.servers import Server

ROWS = 32
STEPS_MAX = 100
WAIT_SECONDS = 120
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


class Flood:
    """A stream that says 1,500 tokens in each of its rows; counts what it says meanwhile."""

    def __init__(self, chunks: Any) -> None:
        self.tokens = 0
        self._chunks = chunks
        self._is_full = threading.Event()
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_full.wait(WAIT_SECONDS), "the batch is never full"
        return self

    def __exit__(self, *_: object) -> None:
        self._stops.set()
        self._thread.join(WAIT_SECONDS)

    def _read(self) -> None:
        rows = set()
        for chunk in self._chunks:
            if chunk.usage:
                self.tokens = chunk.usage.completion_tokens
            rows |= {choice.index for choice in chunk.choices if self.tokens}
            if len(rows) >= ROWS:
                self._is_full.set()
            if self._stops.is_set():
                self._chunks.close()
                return


@pytest.fixture(scope="module")
def client(engine_server: Server) -> Iterator[openai.OpenAI]:
    with engine_server.client(max_retries=0) as client:
        yield client


@pytest.mark.parametrize(("prompts", "choices"), [(0, 128), (160, 4)])
def test_a_chat_does_not_wait_for_another_requests_many_rows(
    client: openai.OpenAI, prompts: int, choices: int
) -> None:
    options: Any = {
        "model": engines.BASE,
        "n": choices,
        "max_tokens": 1500,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "logit_bias": engines.without_end(),
    }
    many = (
        client.completions.create(prompt=["Once"] * prompts, **options)
        if prompts
        else client.chat.completions.create(messages=MESSAGES, **options)
    )
    with Flood(many) as flood:
        before = flood.tokens
        said = client.chat.completions.create(
            model=engines.BASE, messages=MESSAGES, max_tokens=4, temperature=0
        )
        steps = (flood.tokens - before) / ROWS
    print(f"answered in the time of {steps:.0f} steps of the other request's rows")
    assert said.choices[0].message.content
    assert steps < STEPS_MAX
