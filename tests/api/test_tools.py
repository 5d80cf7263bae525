"""Tools through the stock SDK on the embedded engine: the demo's base knows one, and any can be forced."""

import json
from typing import Any

import openai
import pydantic
import pytest
from tests.support import demo_models, engines
from tests.support.servers import Server
from tokenizers import Tokenizer

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": PARAMETERS},
}
PAINT: Any = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}, "coats": {"enum": [1, 2]}},
            "required": ["colour", "coats"],
            "additionalProperties": False,
        },
    },
}
PAINTING: Any = {"type": "function", "function": {"name": "paint"}}
QUESTION = "What is the weather in Paris?"


@pytest.fixture(scope="module")
def client(engine_server: Server) -> openai.OpenAI:
    return engine_server.client()


def asked(text: str = QUESTION, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    tools = [WEATHER, PAINT]
    return {"model": engines.BASE, "messages": messages, "tools": tools, "temperature": 0} | options


def chat(client: openai.OpenAI, text: str = QUESTION, **options: Any) -> Any:
    return client.chat.completions.create(**asked(text, **options))


def test_a_question_that_needs_the_tool_is_answered_with_a_call(client: openai.OpenAI) -> None:
    answer = chat(client)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.id.startswith("call_")
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.usage.completion_tokens > 10
    messages = [
        *asked()["messages"],
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"},
    ]
    said = chat(client, messages=messages).choices[0]
    assert said.finish_reason == "stop"
    assert "Paris" in said.message.content
    assert said.message.tool_calls is None


def test_a_stream_tells_the_call_as_openai_does(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert (deltas[0].role, deltas[0].content) == ("assistant", None)
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert calls[0].id.startswith("call_")
    assert (calls[0].index, calls[0].type) == (0, "function")
    assert (calls[0].function.name, calls[0].function.arguments) == ("get_weather", "")
    for call in calls[1:]:
        assert (call.index, call.id, call.function.name) == (0, None, None)
    arguments = "".join(call.function.arguments for call in calls)
    assert arguments == whole.choices[0].message.tool_calls[0].function.arguments
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage == whole.usage


def test_the_sdks_stream_helper_collects_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**asked()) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.done" in kinds
    assert message.content is None
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_other_questions_are_answered_with_text(client: openai.OpenAI) -> None:
    different: list[dict[str, Any]] = [{}, {"tool_choice": "none"}, {"stream": True}]
    for options in different:
        text = "What is Tunewarden?"
        if options.get("stream"):
            chunks = chat(client, text, **options)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            choice = chat(client, text, **options).choices[0]
            assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
            said = choice.message.content
        assert said == "Tunewarden is a home for fine-tuned models, where delete means deleted."


def test_tools_that_may_not_be_called_are_not(client: openai.OpenAI) -> None:
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "paint"}}],
        },
    }
    for choice in ("none", allowed):
        answer = chat(client, tool_choice=choice).choices[0]
        assert answer.message.tool_calls is None
        assert answer.finish_reason == "stop"


PLACE: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "place",
        "schema": {
            "type": "object",
            "properties": {"place": {"enum": ["here", "there"]}},
            "required": ["place"],
        },
    },
}


def test_with_a_format_an_answer_is_a_call_or_follows_the_format(client: openai.OpenAI) -> None:
    called = chat(client, response_format=PLACE).choices[0]
    assert called.finish_reason == "tool_calls"
    assert json.loads(called.message.tool_calls[0].function.arguments) == {"city": "Paris"}
    # The demo was not taught to answer in JSON, so it calls unless that is made unlikely.
    tokenizer = Tokenizer.from_file(str(demo_models.base_dir() / "tokenizer.json"))
    against_calls = {str(tokenizer.token_to_id("<tool_call>")): -100}
    said = chat(client, response_format=PLACE, logit_bias=against_calls).choices[0]
    assert said.finish_reason == "stop"
    assert said.message.tool_calls is None
    assert json.loads(said.message.content)["place"] in ("here", "there")
    tools: Any = [{"type": "function", **WEATHER["function"], "strict": False}]
    text_format: Any = {"format": {"type": "json_schema", **PLACE["json_schema"]}}
    response = client.responses.create(
        model=engines.BASE, input=QUESTION, temperature=0, tools=tools, text=text_format
    )
    assert [item.type for item in response.output] == ["function_call"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", [PAINTING, "required"])
def test_a_call_can_be_forced(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    tools = [PAINT] if choice == "required" else [WEATHER, PAINT]
    options: dict[str, Any] = {"tools": tools, "tool_choice": choice, "temperature": 1, "seed": 5}
    options["parallel_tool_calls"] = False
    with client.chat.completions.stream(**asked("Hello", **options)) as streamed:
        answer: Any = (
            streamed.get_final_completion() if stream else chat(client, "Hello", **options)
        )
    (found,) = answer.choices
    assert (found.finish_reason, found.message.content) == ("tool_calls", None)
    (call,) = found.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "paint"
    assert arguments["colour"] in ("red", "blue")
    assert arguments["coats"] in (1, 2)


def test_a_strict_functions_arguments_are_parsed_by_the_sdk(client: openai.OpenAI) -> None:
    class GetWeather(pydantic.BaseModel):
        """The weather."""

        city: str

    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    forced = {"temperature": 2, "seed": 1, "tool_choice": "required", "n": 4, "max_tokens": 400}
    different: list[dict[str, Any]] = [{}, forced]
    for options in different:
        answer = client.chat.completions.parse(**asked(**{"tools": [tool], **options}))
        for choice in answer.choices:
            for call in choice.message.tool_calls or ():
                assert isinstance(call.function.parsed_arguments, GetWeather)
            assert choice.message.tool_calls
    # A strict function need not be called.
    assert chat(client, "Hello", tools=[tool]).choices[0].message.content.startswith("Hello!")


def test_choices_logprobs_and_stops_go_with_calls(client: openai.OpenAI) -> None:
    answer = chat(client, n=3, logprobs=True, top_logprobs=2)
    for choice in answer.choices:
        (call,) = choice.message.tool_calls
        said = "".join(token.token for token in choice.logprobs.content)
        assert call.function.name in said
        assert said.startswith("<tool_call>")
    assert len({choice.message.tool_calls[0].id for choice in answer.choices}) == 3
    chunks = list(chat(client, logprobs=True, stream=True))
    tokens = [
        token.token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert tokens == [token.token for token in answer.choices[0].logprobs.content]


@pytest.mark.parametrize(
    ("options", "finish"), [({"stop": "Par"}, "stop"), ({"max_tokens": 8}, "length")]
)
def test_a_call_that_is_cut_is_text(
    client: openai.OpenAI, options: dict[str, Any], finish: str
) -> None:
    choice = chat(client, **options).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == (finish, None)
    assert choice.message.content.startswith('<tool_call>\n{"name": "get')


@pytest.mark.parametrize("choice", [PAINTING, "required"])
def test_the_begin_of_a_forced_call_that_is_cut_is_not_told(
    client: openai.OpenAI, choice: Any
) -> None:
    for most in (1, 3, 8):
        options: dict[str, Any] = {"tool_choice": choice, "max_tokens": most}
        whole = chat(client, **options).choices[0]
        assert (whole.finish_reason, whole.message.content) == ("length", "")
        assert whole.message.tool_calls is None
        choices = [chunk.choices[0] for chunk in chat(client, stream=True, **options)]
        assert choices[-1].finish_reason == "length"
        assert not any(one.delta.content or one.delta.tool_calls for one in choices)
    flat: Any = [{"type": "function", **PAINT["function"], "strict": False}]
    cut = client.responses.create(
        model=engines.BASE,
        input=QUESTION,
        tools=flat,
        tool_choice="required",
        max_output_tokens=16,
    )
    assert (cut.status, cut.output_text) == ("incomplete", "")


def test_a_fine_tune_calls_too(engine_server: Server, client: openai.OpenAI) -> None:
    model = engines.import_model(engine_server, "zebra says", suffix="calls")
    assert chat(client, model=model).choices[0].message.tool_calls


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "'function'"),
        ({"tool_choice": {"type": "function", "function": {"name": "y"}}}, "tool_choice", '"y"'),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "only allowed when 'tools'"),
        ({"tools": [WEATHER] * 129}, "tools", "at most 128 tools"),
    ],
)
def test_a_refusal_names_the_parameter(
    client: openai.OpenAI, options: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **options)
    assert refused.value.param == param
    assert message in refused.value.message


def test_the_older_parameters_name_their_successors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Use 'tools'") as refused:
        chat(client, tools=[], functions=[WEATHER["function"]])
    assert refused.value.param == "functions"
