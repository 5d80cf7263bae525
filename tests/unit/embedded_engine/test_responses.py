"""The Responses API, translated into a chat and back."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.clock import HandClock

from tunewarden.embedded_engine.requests import parse_chat
from tunewarden.embedded_engine.responses.output import LOGPROBS_BYTES_MAX
from tunewarden.embedded_engine.responses.requests import (
    in_its_words,
    parse_response,
    translated,
)
from tunewarden.embedded_engine.responses.translation import Translation
from tunewarden.errors import Error, Kind

ASKED: dict[str, Any] = {"model": "m", "input": "hi"}
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells it.",
    "parameters": SCHEMA,
    "strict": True,
}
CHAT_WEATHER = {
    "type": "function",
    "function": {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")},
}
TIME = {"type": "function", "name": "time"}
FAILED = Error(Kind.UNAVAILABLE, "The engine stops.", code="engine_stopped")


def chat_of(**options: Any) -> dict[str, Any]:
    return translated(json.dumps({**ASKED, **options}).encode())[0]


def shown_of(**options: Any) -> dict[str, Any]:
    return translated(json.dumps({**ASKED, **options}).encode())[1]


def refused(**options: Any) -> Error:
    with pytest.raises(Error) as caught:
        parse_response(json.dumps({**ASKED, **options}).encode())
    return caught.value


def test_a_text_is_a_chat_with_one_message() -> None:
    assert chat_of() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }
    messages = chat_of(instructions="Be brief.")["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}


def test_calls_stand_in_the_message_that_they_follow() -> None:
    def call(name: str) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{name}",
            "call_id": name,
            "name": "weather",
            "arguments": "{}",
            "status": "completed",
        }

    def chats(name: str) -> dict[str, Any]:
        return {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}}

    said = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "One ", "annotations": [], "logprobs": []}],
    }
    items = [
        {"role": "user", "content": "Weather?"},
        said,
        call("a"),
        call("b"),
        {"type": "function_call_output", "call_id": "a", "output": "sun"},
        {
            "type": "function_call_output",
            "call_id": "b",
            "output": [{"type": "input_text", "text": "rain"}],
        },
        call("c"),
    ]
    assert chat_of(input=items)["messages"] == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "One ", "tool_calls": [chats("a"), chats("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": "rain"},
        {"role": "assistant", "content": None, "tool_calls": [chats("c")]},
    ]


def test_functions_are_a_chats_and_are_shown_as_they_came() -> None:
    options: dict[str, Any] = {
        "tools": [WEATHER, TIME],
        "tool_choice": {"type": "function", "name": "time"},
        "parallel_tool_calls": False,
    }
    chat = chat_of(**options)
    assert chat["tools"] == [CHAT_WEATHER, {"type": "function", "function": {"name": "time"}}]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "time"}}
    assert chat["parallel_tool_calls"] is False
    shown = shown_of(**options)
    assert {name: shown[name] for name in options} == options


@pytest.mark.parametrize("choice", ["none", "auto", "required"])
def test_a_choice_in_a_word_is_a_chats(choice: str) -> None:
    assert chat_of(tools=[TIME], tool_choice=choice)["tool_choice"] == choice


def test_a_choice_among_some_tools_leaves_the_others_out() -> None:
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "weather"}],
    }
    chat = chat_of(tools=[WEATHER, TIME], tool_choice=choice)
    assert (chat["tool_choice"], chat["tools"]) == ("required", [CHAT_WEATHER])
    assert shown_of(tools=[WEATHER, TIME], tool_choice=choice)["tools"] == [WEATHER, TIME]


def test_a_schema_is_a_chats_response_format() -> None:
    form = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
    assert chat_of(text={"format": form})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert shown_of(text={"format": form})["text"] == {"format": form}
    json_object = {"type": "json_object"}
    assert chat_of(text={"format": json_object})["response_format"] == json_object
    assert "response_format" not in chat_of(text={"format": {"type": "text"}})


def test_logprobs_are_asked_for_by_include() -> None:
    assert "logprobs" not in chat_of(top_logprobs=2)
    chat = chat_of(top_logprobs=2, include=["message.output_text.logprobs"])
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)
    assert chat_of(include=["message.output_text.logprobs"])["top_logprobs"] == 0


def test_null_is_the_same_as_absent() -> None:
    names = (
        "background", "conversation", "include", "instructions", "max_output_tokens", "metadata", "previous_response_id",
        "prompt", "reasoning", "store", "stream", "stream_options", "temperature", "text", "tool_choice", "tools",
        "top_logprobs", "top_p", "truncation", "unheard_of",
    )  # fmt: skip
    whole = json.dumps({**ASKED, **dict.fromkeys(names)}).encode()
    assert translated(whole) == translated(json.dumps(ASKED).encode())


@pytest.mark.parametrize("store", [True, False, None])
def test_whether_to_store_may_be_said_and_changes_nothing(*, store: bool | None) -> None:
    assert chat_of(store=store) == chat_of()


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"input": 1}, "input"),
        ({"input": None}, "input"),
        ({"input": [1]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input[0].arguments"),
        ({"input": [{"role": "user", "content": "x", "new": 1}]}, "input[0].new"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{**TIME, "parameter": {}}]}, "tools[0].parameter"),
        ({"tools": [{**TIME, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TIME]}, "tools": [WEATHER]},
            "tool_choice.tools[0].name",
        ),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": dict.fromkeys(map(str, range(17)), "v")}, "metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"store": "yes"}, "store"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"user": 1}, "user"),
        ({"n": 2}, "n"),
        ({"top_p": 2}, "top_p"),
        ({"min_tokens": 9, "max_output_tokens": 8}, "min_tokens"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_as_it_was_sent(options: dict[str, Any], param: str) -> None:
    error = refused(**options)
    assert error.kind is Kind.INVALID
    assert error.param == param
    assert "messages" not in error.message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Please reduce the length of the messages.", "Please reduce the length of the input."),
        ("Invalid 'messages[3].tool_calls[0].function.arguments': no", "Invalid 'input': no"),
        ("Invalid 'tools[1].function.parameters': no", "Invalid 'tools[1].parameters': no"),
        ("Invalid 'response_format.json_schema.schema': no", "Invalid 'text.format.schema': no"),
        ("reduce 'max_tokens', 'n'", "reduce 'max_output_tokens', 'n'"),
        ("Invalid 'tool_choice.function.name'", "Invalid 'tool_choice.name'"),
    ],
)
def test_a_chats_errors_have_the_names_of_this_api(message: str, shown: str) -> None:
    with pytest.raises(Error) as caught, in_its_words():
        raise Error(Kind.INVALID, message, param="max_completion_tokens", code="c")
    error = caught.value
    assert (error.message, error.param, error.code) == (shown, "max_output_tokens", "c")


WORDS = st.sampled_from(
    [
        "message", "function_call", "function_call_output", "reasoning", "function", "allowed_tools", "auto", "user",
        "input_text", "json_schema", "weather",
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "type", "role", "content", "call_id", "name", "arguments", "output", "text", "format", "schema", "parameters",
        "mode", "tools", "effort",
    ]
)  # fmt: skip
FIELDS = st.sampled_from(
    [
        "input", "instructions", "include", "metadata", "max_output_tokens", "text", "tools", "tool_choice", "reasoning",
        "stream_options", "prompt", "store", "truncation", "top_logprobs", "seed", "logit_bias",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_any_json_is_parsed_or_refused(more: dict[str, Any]) -> None:
    with suppress(Error):
        parse_response(json.dumps({**ASKED, **more}).encode())


# What comes back: a chat's chunks.


def chunk(finish: str | None = None, logprobs: list[Any] | None = None, **delta: Any) -> bytes:
    said = {"content": logprobs, "refusal": None} if logprobs is not None else None
    choice = {"index": 0, "delta": delta, "logprobs": said, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], "usage": None}).encode() + b"\n\n"


def call(index: int, arguments: str, **first: Any) -> bytes:
    function = {"arguments": arguments}
    if first:
        function |= {"name": first.pop("name")}
    return chunk(tool_calls=[{"index": index, "function": function, **first}])


USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9,'
    b'"prompt_tokens_details":{"cached_tokens":2}}}\n\ndata: [DONE]\n\n'
)


def translation(*, stream: bool) -> Translation:
    return Translation(
        parse_response(json.dumps({**ASKED, "stream": stream}).encode()), HandClock()
    )


def events_of(*chunks: bytes) -> list[dict[str, Any]]:
    told = translation(stream=True)
    sent = told.opening() + b"".join(map(told.read, [*chunks, USAGE])) + told.closing()
    return parsed(sent)


def parsed(sent: bytes) -> list[dict[str, Any]]:
    events = []
    for event in sent.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        found = json.loads(data.removeprefix("data: "))
        assert name == f"event: {found['type']}"
        events.append(found)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def whole_of(*chunks: bytes) -> dict[str, Any]:
    told = translation(stream=False)
    assert b"".join(map(told.read, [*chunks, USAGE])) == b""
    found: dict[str, Any] = json.loads(b"".join(told.whole()))
    return found


CALLS = (
    chunk(role="assistant", content="Let me "),
    chunk(content="see."),
    call(0, "", id="call_a", type="function", name="weather"),
    call(0, '{"x":'),
    call(0, '"y"}'),
    call(1, "{}", id="call_b", type="function", name="time"),
    chunk("tool_calls"),
)


def test_text_and_calls_are_items_one_after_the_other() -> None:
    events = events_of(*CALLS)
    text, argument = "response.output_text", "response.function_call_arguments"
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        f"{text}.delta",
        f"{text}.delta",
        f"{text}.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        f"{argument}.delta",
        f"{argument}.delta",
        f"{argument}.done",
        "response.output_item.done",
        "response.output_item.added",
        f"{argument}.delta",
        f"{argument}.done",
        "response.output_item.done",
        "response.completed",
    ]
    places = [event["output_index"] for event in events if "output_index" in event]
    assert places == [0] * 7 + [1] * 5 + [2] * 4
    message, first, second = events[-1]["response"]["output"]
    assert message["content"][0]["text"] == "Let me see."
    assert first == {
        "id": first["id"],
        "type": "function_call",
        "status": "completed",
        "call_id": "call_a",
        "name": "weather",
        "arguments": '{"x":"y"}',
    }
    assert (second["call_id"], second["name"], second["arguments"]) == ("call_b", "time", "{}")
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [one["id"] for one in added] == [message["id"], first["id"], second["id"]]
    assert added[1]["arguments"] == ""
    done = [event for event in events if event["type"] == f"{argument}.done"]
    assert [one["name"] for one in done] == ["weather", "time"]


def test_whole_it_is_what_the_stream_ended_with() -> None:
    streamed = events_of(*CALLS)[-1]["response"]
    whole = whole_of(*CALLS)
    assert whole.keys() == streamed.keys()
    for one in (whole, streamed):
        one["id"] = ""
        for item in one["output"]:
            item["id"] = ""
    assert whole == streamed
    assert whole["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
    }


def test_who_says_nothing_says_an_empty_text() -> None:
    (item,) = whole_of(chunk("stop"))["output"]
    assert item["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]


def test_what_is_cut_by_its_length_is_incomplete() -> None:
    response = whole_of(chunk(content="a"), chunk("length"))
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    cut = whole_of(call(0, "{", id="call_a", name="time"), chunk("length"))
    assert cut["output"][0]["status"] == "incomplete"


def test_long_logprobs_are_not_repeated_in_events() -> None:
    token = {"token": "x" * 1000, "logprob": -1.0, "bytes": [], "top_logprobs": []}
    chunks = [chunk(content="a", logprobs=[token])] * (LOGPROBS_BYTES_MAX // 1000)
    events = events_of(*chunks, chunk("stop"))
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [[token]] * len(chunks)
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == []
    (item,) = whole_of(*chunks, chunk("stop"))["output"]
    assert item["content"][0]["logprobs"] == [token] * len(chunks)


def test_a_stream_that_fails_ends_with_the_error_and_the_failed_response() -> None:
    told = translation(stream=True)
    sent = told.opening() + told.read(chunk(content="a")) + told.failed(FAILED)
    *_, error, failed = parsed(sent)
    assert (error["type"], error["code"], error["error"]["code"]) == (
        "error",
        "engine_stopped",
        "engine_stopped",
    )
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {
        "code": "server_error",
        "message": "The engine stops.",
    }
    assert failed["response"]["output"][0]["content"][0]["text"] == "a"


def test_control_a_chat_knows_no_such_request() -> None:
    with pytest.raises(Error):
        parse_chat(json.dumps(ASKED).encode())
