"""Bounds of numbers that are further out than the library takes."""

from typing import Any

import pytest

from tunewarden.embedded_engine.number_bounds import (
    INTEGER_MAX,
    INTEGER_MIN,
    NUMBER_MAX,
    with_near_bounds,
)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"type": "integer", "minimum": -1e30, "maximum": 10**30},
            {"type": "integer", "minimum": INTEGER_MIN, "maximum": INTEGER_MAX},
        ),
        (
            {"items": {"type": "number", "exclusiveMinimum": -1e19, "exclusiveMaximum": 1e300}},
            {
                "items": {
                    "type": "number",
                    "exclusiveMinimum": -NUMBER_MAX,
                    "exclusiveMaximum": NUMBER_MAX,
                }
            },
        ),
        ({"maximum": 1e30}, {"maximum": NUMBER_MAX}),
    ],
)
def test_they_come_nearer(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert with_near_bounds(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        {"type": "number", "minimum": -1e18, "maximum": 5},
        {"type": "integer", "minimum": 1e30},  # nothing would be left
        {"properties": {"minimum": {"const": {"maximum": 1e30}}}},
        {"minimum": True, "maximum": "1e30"},
    ],
)
def test_others_stay(schema: dict[str, Any]) -> None:
    assert with_near_bounds(schema) == schema
