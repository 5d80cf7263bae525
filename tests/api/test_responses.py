"""The Responses API through the stock SDK, on the embedded engine."""

import asyncio
import json
import re
import threading
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from tests.support import engines
from tests.support.servers import Server

QUESTION = "What is Tunewarden?"
LOGPROBS: Any = ["message.output_text.logprobs"]
STREAMED_TOKENS = 600


@pytest.fixture(scope="module")
def client(engine_server: Server) -> openai.OpenAI:
    return engine_server.client()


def asked(**options: Any) -> dict[str, Any]:
    return {"model": engines.BASE, "input": QUESTION, "temperature": 0, **options}


def chat(client: openai.OpenAI, messages: Any, **options: Any) -> Any:
    return client.chat.completions.create(
        model=engines.BASE, messages=messages, temperature=0, **options
    )


def test_a_response_says_what_a_chat_says(client: openai.OpenAI) -> None:
    said = chat(client, [{"role": "user", "content": QUESTION}])
    response = client.responses.create(**asked())
    assert response.output_text == said.choices[0].message.content
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == (
        "response",
        "completed",
        engines.BASE,
    )
    assert response.usage is not None
    assert response.usage.input_tokens == said.usage.prompt_tokens
    assert response.usage.output_tokens == said.usage.completion_tokens
    assert response.usage.total_tokens == said.usage.total_tokens
    (item,) = response.output
    assert item.type == "message"
    assert item.id.startswith("msg_")
    assert (item.status, item.role) == ("completed", "assistant")
    extra = response.model_dump()
    assert extra["store"] is False
    assert (response.error, response.incomplete_details, response.previous_response_id) == (
        None,
        None,
        None,
    )


def test_an_answer_repeats_what_was_asked(client: openai.OpenAI) -> None:
    sent = {
        "instructions": "Be brief.",
        "max_output_tokens": 16,
        "metadata": {"run": "7"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "key",
        "safety_identifier": "someone",
        "top_p": 0.5,
        "user": "u",
    }
    response = client.responses.create(**asked(**sent, store=True, truncation="disabled"))
    shown = response.model_dump()
    assert {name: shown[name] for name in sent} == sent
    assert shown["store"] is False
    assert (shown["temperature"], shown["tools"], shown["tool_choice"]) == (0, [], "auto")
    assert shown["text"] == {"format": {"type": "text"}, "verbosity": None}


def test_items_are_messages_of_a_chat(client: openai.OpenAI) -> None:
    first = client.responses.create(**asked(max_output_tokens=8))
    items: Any = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": "Hello"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        *[item.model_dump() for item in first.output],
        {"role": "user", "content": QUESTION},
    ]
    messages = [
        {"role": "system", "content": "Speak plainly."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": QUESTION},
    ]
    response = client.responses.create(**asked(input=items, instructions="Speak plainly."))
    said = chat(client, messages)
    assert response.output_text == said.choices[0].message.content
    assert response.usage is not None
    assert response.usage.input_tokens == said.usage.prompt_tokens


def test_functions_that_must_not_be_called_are_not(client: openai.OpenAI) -> None:
    weather: Any = {
        "type": "function",
        "name": "weather",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }
    response = client.responses.create(**asked(tools=[weather], tool_choice="none"))
    assert response.output_text == client.responses.create(**asked()).output_text
    assert response.tool_choice == "none"
    (shown,) = response.tools
    assert shown.model_dump(exclude_none=True) == weather


def test_a_response_ends_at_its_tokens(client: openai.OpenAI) -> None:
    response = client.responses.create(**asked(max_output_tokens=3))
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 3
    (item,) = response.output
    assert item.type == "message"
    assert item.status == "incomplete"
    events = list(client.responses.create(**asked(max_output_tokens=3), stream=True))
    assert events[-1].type == "response.incomplete"


def test_logprobs_are_a_chats(client: openai.OpenAI) -> None:
    said = chat(
        client,
        [{"role": "user", "content": QUESTION}],
        logprobs=True,
        top_logprobs=3,
        max_tokens=5,
    )
    wanted = [one.model_dump() for one in said.choices[0].logprobs.content]
    options = asked(include=LOGPROBS, top_logprobs=3, max_output_tokens=5)
    response = client.responses.create(**options)
    assert _logprobs(response) == wanted
    streamed: list[Any] = []
    for event in client.responses.create(**options, stream=True):
        if event.type == "response.output_text.delta":
            streamed += [one.model_dump() for one in event.logprobs]
        if event.type == "response.incomplete":
            assert _logprobs(event.response) == wanted
    assert [one["token"] for one in streamed] == [one["token"] for one in wanted]
    without = client.responses.create(**asked(top_logprobs=3, max_output_tokens=5))
    assert _logprobs(without) == []


def _counts(response: Response) -> tuple[int, int]:
    assert response.usage is not None
    return response.usage.input_tokens, response.usage.output_tokens


def test_the_usage_tells_what_of_the_input_was_computed_before(client: openai.OpenAI) -> None:
    text = "Which words of this were computed before, and which were not? " * 4
    cached = []
    for _ in range(2):
        usage = client.responses.create(**asked(input=text, max_output_tokens=1)).usage
        assert usage is not None
        cached.append(usage.input_tokens_details.cached_tokens)
        assert usage.input_tokens_details.cached_tokens < usage.input_tokens
    assert cached[0] < cached[1]


def _logprobs(response: Response) -> list[dict[str, Any]]:
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    return [one.model_dump() for one in part.logprobs or []]


def test_a_stream_has_every_event_in_order(client: openai.OpenAI) -> None:
    whole = client.responses.create(**asked())
    events: list[Any] = list(client.responses.create(**asked(), stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    final = events[-1].response
    assert final.output_text == text
    assert _counts(final) == _counts(whole)
    assert final.output == [events[-2].item]
    assert {event.response.id for event in (*events[:2], events[-1])} == {final.id}
    assert {event.response.model for event in (*events[:2], events[-1])} == {engines.BASE}
    assert events[0].response.status == events[1].response.status == "in_progress"
    assert [event.item_id for event in events[3:-2]] == [final.output[0].id] * (deltas + 3)


def test_the_sdks_helper_for_streams_follows_it(client: openai.OpenAI) -> None:
    with client.responses.stream(**asked()) as stream:
        for event in stream:
            assert event.type != "error"
        final = stream.get_final_response()
    assert final.output_text == client.responses.create(**asked()).output_text


def test_the_asynchronous_sdk_is_no_different(engine_server: Server) -> None:
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(
            base_url=engine_server.url, api_key=engine_server.owner_key
        ) as client:
            whole = await client.responses.create(**asked())
            async with client.responses.stream(**asked()) as stream:
                final = await stream.get_final_response()
            return whole.output_text, final.output_text

    whole, streamed = asyncio.run(ask())
    assert whole == streamed != ""


def test_a_fine_tune_has_the_name_that_was_asked_for(engine_server: Server) -> None:
    model = engines.import_model(engine_server, "zebra says", suffix="responses")
    client = engine_server.client()
    response = client.responses.create(**asked(model=model))
    assert response.model == model
    assert response.output_text.startswith("zebra says")
    raw = client.responses.with_raw_response.create(**asked(model=model), stream=True)
    body = raw.http_response.read().decode()
    names = {
        json.loads(line.removeprefix("data: ")).get("response", {}).get("model", model)
        for line in body.splitlines()
        if line.startswith("data: ")
    }
    assert names == {model}
    assert re.findall(r'"m_\w{24}"', body) == []


def test_a_stream_of_a_deleted_model_ends_with_its_error(engine_server: Server) -> None:
    model = engines.import_model(engine_server, "zebra says", suffix="cut")
    began = threading.Event()
    found: list[Any] = []

    def read() -> None:
        options = asked(
            model=model,
            max_output_tokens=STREAMED_TOKENS,
            extra_body={"logit_bias": engines.without_end()},
        )
        try:
            for event in engine_server.client(max_retries=0).responses.create(
                **options, stream=True
            ):
                found.append(event)
                if event.type == "response.output_text.delta":
                    began.set()
        except openai.APIError as error:
            found.append(error)
        finally:
            began.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert began.wait(30)
    assert engine_server.client().models.delete(model).deleted
    thread.join(60)
    error = found[-1]
    assert isinstance(error, openai.APIError), found[-1]
    assert error.code == "model_deleted"
    assert "response.completed" not in [getattr(event, "type", "") for event in found]


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the conversation"),
        ({"conversation": "conv_1"}, "conversation", "send the conversation"),
        ({"background": True}, "background", "use 'stream'"),
        ({"prompt": {"id": "p"}}, "prompt", "send 'instructions' and 'input'"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort", "Only \"none\" is supported"),
        ({"truncation": "auto"}, "truncation", 'Only "disabled" is supported'),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", 'Only "function" is supported'),
        ({"tool_choice": "any"}, "tool_choice", "'auto'"),
        ({"include": ["x"]}, "include[0]", "message.output_text.logprobs"),
        ({"input": []}, "input", "empty array"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "'developer'"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "send the item"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
            "'input_text'",
        ),
        ({"input": "long " * 3000}, "input", "your input resulted in"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "at most 512"),
        ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"extra_body": {"messages": []}}, "messages", "Use 'input'"),
        ({"extra_body": {"max_tokens": 4}}, "max_tokens", "Use 'max_output_tokens'"),
        ({"extra_body": {"stream_options": {"include_usage": True}}}, "stream_options.include_usage", "always"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_parameter_and_what_to_do(
    client: openai.OpenAI, options: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**asked(**options))
    assert refused.value.param == param
    assert message in refused.value.message


def test_what_needs_a_stored_response_says_that_none_is(client: openai.OpenAI) -> None:
    response = client.responses.create(**asked(max_output_tokens=1))
    for call in (
        client.responses.retrieve,
        client.responses.cancel,
        client.responses.delete,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call(response.id)
        assert f"Response with id '{response.id}' not found." in refused.value.message
        assert "send the conversation in 'input'" in refused.value.message
    with pytest.raises(openai.NotFoundError, match="usage"):
        client.responses.input_tokens.count(model=engines.BASE, input="x")
    with pytest.raises(openai.NotFoundError, match="Shorten 'input'"):
        client.responses.compact(model=engines.BASE, input="x")
