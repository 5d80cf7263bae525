"""The types of parameters: the same on chats, completions and responses."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.embedded_engine.parameter_types import TYPES
from tunewarden.embedded_engine.requests import Ask, parse_chat, parse_completion
from tunewarden.embedded_engine.responses.requests import parse_response
from tunewarden.errors import Error, Kind
from tunewarden.invalid_values import SHOWN_CHARACTERS, shown

ENDPOINTS: dict[str, tuple[Callable[[bytes], Ask], dict[str, Any]]] = {
    "chat": (parse_chat, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "completion": (parse_completion, {"model": "m", "prompt": "hi"}),
    "response": (parse_response, {"model": "m", "input": "hi"}),
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
# What is deeper inside, such as a tool's schema, only the endpoint that takes it looks at.
VALUES: st.SearchStrategy[Any] = st.one_of(
    SCALARS,
    st.lists(SCALARS | st.just({}), max_size=3),
    st.dictionaries(st.sampled_from(["a", "1", "include_usage"]), SCALARS, max_size=3),
)


def refusal(endpoint: str, more: dict[str, Any]) -> Error | None:
    parse, body = ENDPOINTS[endpoint]
    try:
        parse(json.dumps({**body, **more}).encode())
    except Error as error:
        return error
    return None


def verdict(endpoint: str, more: dict[str, Any]) -> tuple[str | None, str] | None:
    """What is said of a wrong type; None if the type is right."""
    error = refusal(endpoint, more)
    return (error.param, error.message) if error and error.code == "invalid_type" else None


@given(st.sampled_from(sorted(TYPES)), VALUES)
def test_the_same_value_has_the_same_type_on_every_endpoint(name: str, value: Any) -> None:
    verdicts = {verdict(endpoint, {name: value}) for endpoint in ENDPOINTS}
    assert len(verdicts) == 1
    is_wrong = value is not None and type(value) not in TYPES[name].python
    (found,) = verdicts
    if is_wrong:
        assert found is not None
        param, message = found
        assert param == name
        assert message.endswith(f"instead: {shown(value)}.")
        assert TYPES[name].words in message


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"user": 5}, "user", "expected a string, but got an integer instead: 5."),
        ({"store": "x"}, "store", 'expected a boolean, but got a string instead: "x".'),
        ({"metadata": []}, "metadata", "expected an object of strings, but got an array instead: []."),
        ({"metadata": {"k": 1}}, "metadata.k", "expected a string, but got an integer instead: 1."),
        ({"reasoning_effort": 7}, "reasoning_effort", "expected a string, but got an integer instead: 7."),
        ({"stop": ["a", None]}, "stop[1]", "expected a string, but got null instead: null."),
        ({"tools": [1]}, "tools[0]", "expected an object, but got an integer instead: 1."),
        ({"logit_bias": {"1": "x"}}, "logit_bias.1", 'expected a decimal, but got a string instead: "x".'),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "expected a boolean"),
        ({"seed": 1.5}, "seed", "expected an integer, but got a decimal instead: 1.5."),
        ({"n": True}, "n", "expected an integer, but got a boolean instead: true."),
    ],
)  # fmt: skip
def test_a_wrong_type_is_named_with_its_value_and_what_is_taken(
    endpoint: str, more: dict[str, Any], param: str, message: str
) -> None:
    error = refusal(endpoint, more)
    assert error is not None
    assert (error.kind, error.param) == (Kind.INVALID, param)
    assert message in error.message


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_null_is_absent_for_every_parameter(endpoint: str) -> None:
    absent = {name: None for name in TYPES if name not in ENDPOINTS[endpoint][1]}
    parse, body = ENDPOINTS[endpoint]
    assert parse(json.dumps({**body, **absent}).encode()) == parse(json.dumps(body).encode())
    assert refusal(endpoint, {"metadata": {"k": None}}) is None


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stop": list("abcde")}, "at most 4 strings, but got 5 instead"),
        ({"stop": "x" * 501}, "at most 500 characters, but got 501 instead"),
        ({"logit_bias": {str(at): 1 for at in range(301)}}, "at most 300 tokens, but got 301 instead"),
        ({"logit_bias": {"x": 1}}, 'Invalid key in \'logit_bias\': "x" is not a token'),
        ({"metadata": {str(at): "v" for at in range(17)}}, "at most 16, but got 17 instead"),
        ({"metadata": {"k": "v" * 513}}, "at most 512 characters, but got 513 instead"),
        ({"metadata": {"k" * 65: "v"}}, "at most 64 characters, but got 65"),
        ({"temperature": 10**400}, "Expected a value <= 2, but got 1000"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_told_with_what_was_sent(
    endpoint: str, more: dict[str, Any], message: str
) -> None:
    error = refusal(endpoint, more)
    assert error is not None
    assert message in error.message


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "more",
    [
        {"user": [LONG] * 10},
        {"user": {LONG: LONG}},
        {"metadata": {LONG: 1}},
        {LONG: 1},
        {"seed": int("9" * 4000)},
        {"messages": [{"role": LONG, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": LONG}]}]},
        {"messages": [{"role": "user", "content": LONG, LONG: 1}]},
        {"response_format": {"type": LONG}},
        {"tools": [{"type": LONG}]},
        {"tool_choice": LONG},
    ],
    ids=range(11),
)
def test_an_error_is_short_whatever_was_sent(more: dict[str, Any]) -> None:
    error = refusal("chat", more)
    assert error is not None
    assert len(error.message) + len(error.param or "") < 5 * SHOWN_CHARACTERS


@pytest.mark.parametrize("ignored", ["cache_control", "reasoning_content"])
def test_what_other_services_take_on_messages_and_parts_changes_nothing(ignored: str) -> None:
    of_other: dict[str, Any] = {ignored: {"type": "ephemeral"}}
    for more in (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", **of_other}]}]},
        {"messages": [{"role": "user", "content": "hi", **of_other}]},
    ):
        parse, body = ENDPOINTS["chat"]
        assert parse(json.dumps({**body, **more}).encode()) == parse(json.dumps(body).encode())
    part = {"type": "input_text", "text": "hi", **of_other}
    item = {"role": "user", "content": [part], **of_other}
    assert refusal("response", {"input": [item]}) is None
