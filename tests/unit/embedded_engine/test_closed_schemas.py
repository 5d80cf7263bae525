"""Which objects are closed."""

from typing import Any

import pytest

from tunewarden.embedded_engine.closed_schemas import closed
from tunewarden.embedded_engine.schema_parts import DEPTH_MAX, SCHEMAS_MAX

NAMED: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**NAMED, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (NAMED, CLOSED),
        ({"type": "array", "items": NAMED}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [NAMED, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": NAMED}},
            {"$ref": "#/$defs/x", "$defs": {"x": CLOSED}},
        ),
        # A property may have the name of a keyword.
        (
            {"type": "object", "properties": {"properties": NAMED, "allOf": {"type": "string"}}},
            {
                "type": "object",
                "properties": {"properties": CLOSED, "allOf": {"type": "string"}},
                "additionalProperties": False,
            },
        ),
    ],
)
def test_an_object_that_names_properties_gets_no_others(
    schema: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert closed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**NAMED, "additionalProperties": True},
        {**NAMED, "additionalProperties": {"type": "string"}},
        {**NAMED, "patternProperties": {"^x": {"type": "string"}}},
        {"enum": [NAMED], "const": NAMED, "default": NAMED},
        {"type": "array", "items": {"allOf": [NAMED, {"properties": {"b": {}}}]}},
        {**NAMED, "anyOf": [{"properties": {"b": {}}}]},
        {"type": "array", "items": [NAMED] * SCHEMAS_MAX},
    ],
)
def test_a_schema_that_says_more_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


def test_what_is_nested_deeply_stays_as_it_is() -> None:
    schema = NAMED
    for _ in range(100 * DEPTH_MAX):
        schema = {"items": schema}
    assert closed(schema) is schema
