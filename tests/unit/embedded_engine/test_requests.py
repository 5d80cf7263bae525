"""Strict parsing of the two bodies."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.embedded_engine.requests import parse_chat, parse_completion
from tunewarden.errors import Error, Kind

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def chat_error(**more: Any) -> Error:
    with pytest.raises(Error) as caught:
        parse_chat(json.dumps({**CHAT, **more}).encode())
    return caught.value


def test_defaults_are_openais() -> None:
    ask = parse_chat(json.dumps(CHAT).encode())
    assert (ask.choices, ask.sampling.temperature, ask.sampling.top_p) == (1, 1.0, 1.0)
    assert (ask.tokens_max, ask.stops, ask.stream, ask.include_usage) == (None, (), False, False)
    assert parse_completion(b'{"model":"m","prompt":"x"}').tokens_max == 16


def test_null_is_the_same_as_absent() -> None:
    nulls = dict.fromkeys(("temperature", "n", "stop", "stream", "stream_options", "tools"))
    assert parse_chat(json.dumps({**CHAT, **nulls}).encode()) == parse_chat(
        json.dumps(CHAT).encode()
    )


def test_parts_of_text_become_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {**CHAT, "messages": [{"role": "user", "content": parts}]}
    assert parse_chat(json.dumps(body).encode()).messages == [{"role": "user", "content": "ab"}]


def test_a_refusal_can_be_sent_back_as_a_part() -> None:
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    body = {**CHAT, "messages": [said], "prompt_cache_options": {"ttl": "1h"}}
    (message,) = parse_chat(json.dumps(body).encode()).messages or []
    assert message == {"role": "assistant", "content": "No."}


def test_an_answer_of_the_sdk_can_be_sent_back_as_history() -> None:
    said: dict[str, Any] = {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "annotations": [],
        "audio": None,
    }
    body = {**CHAT, "messages": [{**said, "tool_calls": None, "function_call": None}]}
    assert parse_chat(json.dumps(body).encode()).messages == [{"role": "assistant", "content": "a"}]


def test_a_parsed_answer_of_the_sdk_can_be_sent_back_as_history() -> None:
    """`parse` and the stream helpers add fields of their own."""
    function = {"name": "f", "arguments": "{}", "parsed_arguments": {}}
    call = {"id": "call_1", "type": "function", "index": 0, "function": function}
    said = {"role": "assistant", "content": "{}", "parsed": {}, "tool_calls": [call]}
    body = {**CHAT, "messages": [said]}
    (message,) = parse_chat(json.dumps(body).encode()).messages or []
    kept = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {}}}
    assert message == {"role": "assistant", "content": "{}", "tool_calls": [kept]}


def test_any_top_k_fits_into_the_batch() -> None:
    for asked, taken in ((2**63, 2**31 - 1), (5, 5), (-1, 0)):
        ask = parse_chat(json.dumps({**CHAT, "top_k": asked}).encode())
        assert ask.sampling.top_k == taken


def test_the_newer_name_of_max_tokens_wins() -> None:
    body = {**CHAT, "max_tokens": 3, "max_completion_tokens": 5}
    assert parse_chat(json.dumps(body).encode()).tokens_max == 5


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 129}, "n"),
        ({"seed": 1.5}, "seed"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": ""}, "stop"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"logit_bias": {"01": 1}}, "logit_bias"),  # else one token has ten names
        ({"logit_bias": {str(token): 1 for token in range(301)}}, "logit_bias"),
        ({"stop": ["ok", "x" * 501]}, "stop[1]"),
        ({"store": True}, "store"),
        ({"stream": "yes"}, "stream"),
        ({"model": 3}, "model"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"temperature": 10**400}, "temperature"),
    ],
)
def test_a_refusal_names_the_parameter(more: dict[str, Any], param: str) -> None:
    error = chat_error(**more)
    assert (error.kind, error.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    "prompt", ["x", ["x", "y"], [1, 2], [[1], [2, 3]], ["x", [1]], "", [""]], ids=repr
)
def test_prompts_come_in_four_forms(prompt: Any) -> None:
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    assert parse_completion(body).prompts is not None


@pytest.mark.parametrize("prompt", [5, [], [1, "x"], [True], [[True]], {"a": 1}, [-1]], ids=repr)
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(Error) as caught:
        parse_completion(json.dumps({"model": "m", "prompt": prompt}).encode())
    assert caught.value.param == "prompt"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "n",
        "stop",
        "seed",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "temperature",
        "logit_bias",
        "max_tokens",
        "echo",
        "best_of",
        "response_format",
        "structured_outputs",
        "modalities",
        "tools",
        "metadata",
        "store",
        "top_k",
        "min_p",
        "repetition_penalty",
        "min_tokens",
        "stop_token_ids",
        "chat_template_kwargs",
    ]
)


# The first example takes seconds on a busy machine.
@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_any_json_is_parsed_or_refused(more: dict[str, Any], chat: bool) -> None:
    body = json.dumps({**(CHAT if chat else {"model": "m", "prompt": "x"}), **more}).encode()
    with suppress(Error):
        (parse_chat if chat else parse_completion)(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with pytest.raises(Error):
        parse_chat(body)
