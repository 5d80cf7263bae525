"""What a request says of the form of its answers."""

import json
from typing import Any

import pytest
from tests.unit.embedded_engine.test_requests import CHAT, chat_error

from tunewarden.embedded_engine.constraints import Constraint
from tunewarden.embedded_engine.formats import CHOICES_MAX
from tunewarden.embedded_engine.requests import Ask, parse_chat, parse_completion

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "null"}}}


def ask(**more: Any) -> Ask:
    return parse_chat(json.dumps({**CHAT, **more}).encode())


def described(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", **more}}


def test_text_is_free() -> None:
    for value in ({"type": "text"}, None):
        assert ask(response_format=value).constraint is None
    assert ask(structured_outputs=None).constraint is None


def test_a_schema_keeps_its_order_and_says_whether_it_is_strict() -> None:
    strict = ask(response_format=described(schema=SCHEMA, strict=True, description="x")).constraint
    assert strict is not None
    assert strict.grammar.index('"b"') < strict.grammar.index('"a"')
    assert '"lenient":false' in strict.grammar
    for more in ({}, {"strict": None}, {"strict": False}):
        loose = ask(response_format=described(schema=SCHEMA, **more)).constraint
        assert loose is not None
        assert '"lenient":true' in loose.grammar


def test_both_spellings_mean_the_same() -> None:
    subject = "schema for response_format 'person'"
    expected = Constraint.of_schema(SCHEMA, "response_format", subject=subject)
    assert ask(response_format=described(schema=SCHEMA, strict=True)).constraint == expected
    for spelled in (SCHEMA, json.dumps(SCHEMA)):
        found = ask(structured_outputs={"json": spelled, "json_object": False}).constraint
        assert found is not None
        assert found.grammar == expected.grammar
    object_ = ask(response_format={"type": "json_object"}).constraint
    assert object_ is not None
    body = {"model": "m", "prompt": "x", "structured_outputs": {"json_object": True}}
    other = parse_completion(json.dumps(body).encode()).constraint
    assert other is not None
    assert other.grammar == object_.grammar
    assert (other.param, object_.param) == ("structured_outputs.json_object", "response_format")


def test_other_forms_are_taken_as_vllm_spells_them() -> None:
    for kind, value in (("regex", "a+"), ("choice", ["a", "b"]), ("grammar", 'root ::= "a"')):
        found = ask(structured_outputs={kind: value, "disable_any_whitespace": True}).constraint
        assert found is not None
        assert found.param == f"structured_outputs.{kind}"


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"response_format": "json"}, "response_format", "expected an object"),
        ({"response_format": {}}, "response_format.type", "Missing required"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "'json_schema'"),
        (
            {"response_format": {"type": "json_object", "strict": True}},
            "response_format.strict",
            "Unrecognized",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "Missing required",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "Missing required",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "1 to 64",
        ),
        ({"response_format": described(schema=[])}, "response_format.json_schema.schema", "array"),
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            "structured_outputs",
            "but got 'regex', 'choice'",
        ),
        ({"structured_outputs": {}}, "structured_outputs", "but got none"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "not JSON"),
        ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json", "an array"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", "but got 0"),
        (
            {"structured_outputs": {"choice": ["a"] * (CHOICES_MAX + 1)}},
            "structured_outputs.choice",
            f"1 to {CHOICES_MAX}",
        ),
        ({"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice[1]", "integer"),
        (
            {"structured_outputs": {"json_object": True, "structural_tag": "x"}},
            "structured_outputs.structural_tag",
            "not supported",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "Use one of them",
        ),
    ],
)
def test_a_refusal_names_the_parameter(more: dict[str, Any], param: str, message: str) -> None:
    error = chat_error(**more)
    assert error.param == param
    assert message in error.message
