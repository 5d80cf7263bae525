"""Structured outputs through the stock SDK on the embedded engine."""

import json
import re
from enum import StrEnum
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field
from tests.support import engines
from tests.support.servers import Server

QUESTION: Any = [{"role": "user", "content": "What is Tunewarden? Answer in JSON."}]


class Mood(StrEnum):
    """Moods."""

    GOOD = "good"
    BAD = "bad"


class Step(BaseModel):
    """A part of an answer."""

    note: str = Field(max_length=8)
    mood: Mood


class Answer(BaseModel):
    """What is asked for."""

    steps: list[Step] = Field(min_length=1, max_length=2)
    sure: bool
    next: Step | None


SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "at": {"type": "integer", "maximum": 99}},
    "required": ["mood", "at"],
    "additionalProperties": False,
}
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True},
}


@pytest.fixture(scope="module")
def client(engine_server: Server) -> openai.OpenAI:
    return engine_server.client()


def chat(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model=engines.BASE, messages=QUESTION, **options)


def refusal(client: openai.OpenAI, **options: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **options)
    return refused.value


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 7, "temperature": 2, "top_p": 1}])
def test_the_sdk_parses_an_answer_into_a_model(
    client: openai.OpenAI, options: dict[str, Any]
) -> None:
    parsed = client.chat.completions.parse(
        model=engines.BASE, messages=QUESTION, response_format=Answer, max_tokens=200, **options
    )
    message = parsed.choices[0].message
    assert isinstance(message.parsed, Answer)
    assert parsed.choices[0].finish_reason == "stop"
    response = client.responses.parse(
        model=engines.BASE,
        input="Answer in JSON.",
        text_format=Step,
        max_output_tokens=100,
    )
    assert isinstance(response.output_parsed, Step)


def test_an_answer_that_is_cut_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=engines.BASE, messages=QUESTION, response_format=Answer, max_tokens=4
        )


def test_every_choice_of_a_stream_follows_the_schema(client: openai.OpenAI) -> None:
    texts, finishes, logprobs = ["", "", ""], set(), 0
    for chunk in chat(
        client,
        response_format=FORMAT,
        n=3,
        stream=True,
        temperature=1.5,
        seed=1,
        max_tokens=100,
        logprobs=True,
        top_logprobs=2,
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes.add(choice.finish_reason)
            if choice.logprobs:
                logprobs += 1
                assert all(token.logprob > -9999 for token in choice.logprobs.content)
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert finishes == {None, "stop"}
    assert logprobs


def test_json_mode_needs_no_word_in_the_messages(client: openai.OpenAI) -> None:
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=300, temperature=0)
    choice = answer.choices[0]
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert choice.message.content.startswith("{")


@pytest.mark.parametrize(
    ("structured", "pattern"),
    [
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"regex": "[a-c]{3}-[0-9]"}, "[a-c]{3}-[0-9]"),
        ({"grammar": 'root ::= "x" [0-9] "y"'}, "x[0-9]y"),
        ({"json": SCHEMA, "disable_any_whitespace": True}, r"\{\"mood\":\"\w+\",\"at\":-?\d+\}"),
    ],
)
def test_forms_as_vllm_spells_them(
    client: openai.OpenAI, structured: dict[str, Any], pattern: str
) -> None:
    extra = {"structured_outputs": structured, "min_tokens": 30, "ignore_eos": True}
    options: Any = {"temperature": 1.5, "max_tokens": 100, "seed": 5, "extra_body": extra}
    said = chat(client, **options).choices[0]
    assert re.fullmatch(pattern, said.message.content)
    assert said.finish_reason == "stop"
    completed = client.completions.create(
        model=engines.BASE, prompt=["Once", "Twice"], n=2, **options
    )
    assert len(completed.choices) == 4
    assert all(re.fullmatch(pattern, choice.text) for choice in completed.choices)


def test_a_stop_string_ends_an_answer_before_it_is_complete(client: openai.OpenAI) -> None:
    said = chat(client, response_format=FORMAT, stop='"at"', max_tokens=60).choices[0]
    assert said.finish_reason == "stop"
    assert '"at"' not in said.message.content


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "127.0.0.1:9"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=x)y"}, "look-around"),
        (
            {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
            "no finite JSON value follows it",
        ),
        ({"type": "integer", "minimum": 1e30}, "bounds of a number"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(
    client: openai.OpenAI, schema: Any, reason: str
) -> None:
    described = {"name": "odd", "schema": schema, "strict": True}
    error = refusal(client, response_format={"type": "json_schema", "json_schema": described})
    assert (error.param, error.type) == ("response_format", "invalid_request_error")
    assert "Invalid schema for response_format 'odd'" in error.message
    assert reason in error.message
    text: Any = {"format": {"type": "json_schema", **described}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=engines.BASE, input="x", text=text)
    assert refused.value.param == "text.format"
