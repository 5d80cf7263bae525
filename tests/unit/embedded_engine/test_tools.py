"""What a request says of tools: parsed strictly, within bounds, and as OpenAI does."""

import json
from typing import Any

import pytest

from tunewarden.embedded_engine.requests import Ask, parse_chat
from tunewarden.embedded_engine.tools import BYTES_MAX, DEPTH_MAX, Tools
from tunewarden.errors import Error, Kind

USER: dict[str, Any] = {"role": "user", "content": "hi"}
CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": 1}'},
}
CALLING: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: dict[str, Any] = {"role": "tool", "tool_call_id": "call_1", "content": "2"}
NESTED: Any = {}
for _ in range(DEPTH_MAX - 1):
    NESTED = {"properties": NESTED}


def tool(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def parsed(messages: Any = None, **more: Any) -> Ask:
    body = {"model": "m", "messages": messages or [USER], **more}
    return parse_chat(json.dumps(body).encode())


def tools_of(**more: Any) -> Tools | None:
    return parsed(tools=[tool("f"), tool("g")], **more).tools


@pytest.mark.parametrize(
    ("choice", "names", "is_forced"),
    [
        (None, {"f", "g"}, False),
        ("auto", {"f", "g"}, False),
        ("required", {"f", "g"}, True),
        (named("g"), {"g"}, True),
        (allowed("auto", "f"), {"f"}, False),
        (allowed("required", "f", "g"), {"f", "g"}, True),
    ],
)
def test_a_choice_says_what_may_be_called_and_whether_it_must(
    choice: Any, names: set[str], is_forced: bool
) -> None:
    found = tools_of(tool_choice=choice)
    assert found is not None
    assert set(found.names) == names
    assert found.is_forced is is_forced
    # The template is shown all of them.
    assert [one["function"]["name"] for one in found.offered] == ["f", "g"]


def test_no_call_is_wanted() -> None:
    assert tools_of(tool_choice="none") is None
    nothings: list[dict[str, Any]] = [
        {},
        {"tools": []},
        {"tools": None},
        {"tool_choice": "none"},
    ]
    for nothing in nothings:
        assert parsed(**nothing).tools is None
    assert parsed(functions=[], function_call=None).tools is None


@pytest.mark.parametrize(
    ("more", "is_parallel"),
    [
        ({}, True),
        ({"parallel_tool_calls": True}, True),
        ({"parallel_tool_calls": False}, False),
        ({"tool_choice": named("f")}, False),
        ({"tool_choice": "required"}, True),
    ],
)
def test_one_call_or_several(more: dict[str, Any], is_parallel: bool) -> None:
    found = tools_of(**more)
    assert found is not None
    assert found.is_parallel is is_parallel


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": "f"}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tools": [tool(), tool("g", parameters=[])]}, "tools[1].function.parameters"),
        ({"tools": [tool(strict="yes")]}, "tools[0].function.strict"),
        ({"tools": [tool(other=1)]}, "tools[0].function.other"),
        ({"tools": [tool(parameters={"a": NESTED})]}, "tools[0].function.parameters"),
        ({"tools": [tool()] * 129}, "tools"),
        ({"tools": [tool(description="x" * BYTES_MAX)]}, "tools"),
        ({"tools": [tool()], "tool_choice": "always"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": 1}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": named("h")}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tools": [tool()], "tool_choice": allowed("auto", "h")}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        (
            {"tools": [tool()], "tool_choice": allowed("any", "f")},
            "tool_choice.allowed_tools.mode",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": named("f")}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
    ],
)
def test_a_refusal_names_the_parameter(more: dict[str, Any], param: str) -> None:
    with pytest.raises(Error) as caught:
        parsed(**more)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_control_what_is_at_a_bound_is_taken() -> None:
    most = [tool(f"f{at}", parameters=NESTED) for at in range(128)]
    found = parsed(tools=most).tools
    assert found is not None
    assert len(found.names) == 128


def test_the_older_parameters_name_their_successors() -> None:
    older: Any = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}
    for name, successor in (("functions", "'tools'"), ("function_call", "'tool_choice'")):
        value = older[name]
        with pytest.raises(Error, match=f"Use {successor}"):
            parsed(**{name: value})


def test_calls_and_their_results_are_history() -> None:
    content = [{"type": "text", "text": "2"}]
    for calling in (CALLING, {**CALLING, "content": "I look."}, {**CALLING, "refusal": None}):
        messages = [USER, calling, {**RESULT, "content": content}]
        found = parsed(messages).messages
        function = {"name": "f", "arguments": {"a": 1}}
        # Templates want arguments as objects, and content as text.
        assert found == [
            USER,
            {
                "role": "assistant",
                "content": calling["content"] or "",
                "tool_calls": [{**CALL, "function": function}],
            },
            RESULT,
        ]


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    for arguments in ("{", "[" * 5000, "not json"):
        call = {**CALL, "function": {"name": "f", "arguments": arguments}}
        messages = parsed([USER, {**CALLING, "tool_calls": [call]}]).messages
        assert messages is not None
        assert messages[1]["tool_calls"][0]["function"]["arguments"] == arguments


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, {"role": "assistant", "content": None}], "messages[1].content"),
        ([USER, {**CALLING, "tool_calls": [1]}], "messages[1].tool_calls[0]"),
        ([USER, {**CALLING, "tool_calls": [CALL] * 129}], "messages[1].tool_calls"),
        ([USER, {**CALLING, "tool_calls": [{**CALL, "id": 3}]}], "messages[1].tool_calls[0].id"),
        (
            [USER, {**CALLING, "tool_calls": [{**CALL, "type": "custom"}]}],
            "messages[1].tool_calls[0].type",
        ),
        (
            [USER, {**CALLING, "tool_calls": [{**CALL, "function": {"name": "f"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [
                USER,
                {
                    **CALLING,
                    "tool_calls": [
                        {**CALL, "function": {"name": "f", "arguments": "[]," * 50_001}}
                    ],
                },
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
        ([{**USER, "tool_calls": [CALL]}], "messages[0].tool_calls"),
        ([USER, RESULT], "messages[1].tool_call_id"),
        ([USER, CALLING, {**RESULT, "tool_call_id": "call_2"}], "messages[2].tool_call_id"),
        ([USER, CALLING, {"role": "tool", "content": "2"}], "messages[2].tool_call_id"),
        (
            [USER, {"role": "assistant", "content": None, "function_call": {"name": "f"}}],
            "messages[1].content",
        ),
        (
            [USER, {"role": "assistant", "content": "", "function_call": {"name": "f"}}],
            "messages[1].function_call",
        ),
    ],
)
def test_a_refused_message_is_named(messages: Any, param: str) -> None:
    with pytest.raises(Error) as caught:
        parsed(messages)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)
