"""What is refused before tokens are made of it."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tunewarden.embedded_engine import prompts
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.requests import parse_chat, parse_completion
from tunewarden.errors import Error

CONTEXT, LONGEST = 100, 8
ROOM = CONTEXT * LONGEST


class Untouched:
    """A tokenizer that fails if it is asked."""

    chat_template = "there is one"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the tokenizer was asked for {name}")


def base() -> Base:
    facts = SimpleNamespace(
        tokenizer=Untouched(), context=CONTEXT, longest_token=LONGEST, text_bytes_max=ROOM
    )
    return cast("Base", facts)


def chat(*texts: str) -> bytes:
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps({"model": "m", "messages": messages}).encode()


def completion(prompt: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": prompt}).encode()


@pytest.mark.parametrize(
    "ask",
    [
        parse_chat(chat("x" * (ROOM + 1))),
        parse_chat(chat("x" * ROOM, "é")),
        parse_chat(chat(*["x"] * CONTEXT)),
        parse_completion(completion("x" * (ROOM + 1))),
        parse_completion(completion([1] * CONTEXT)),
        parse_completion(completion([[1], [1] * CONTEXT])),
    ],
    ids=["a long text", "long together", "many", "a long prompt", "ids", "the second prompt"],
)
def test_what_cannot_fit_by_its_size_is_refused_unread(ask: Any) -> None:
    with pytest.raises(Error) as caught:
        prompts.encode(ask, base())
    assert caught.value.code == "context_length_exceeded"


def test_control_what_may_fit_is_read() -> None:
    with pytest.raises(AssertionError, match="was asked"):
        prompts.encode(parse_completion(completion("x" * ROOM)), base())
