"""Bounds of numbers in a JSON schema, as far out as llguidance takes them.

A schema may say that a number lies between -1e30 and 1e30, which the library refuses. With a nearer bound an answer
still follows the schema.
"""

from typing import Any

from tunewarden.embedded_engine.schema_parts import rewritten

# A range of integers of which both bounds are further out is refused, as is any range of other numbers.
INTEGER_MIN, INTEGER_MAX = -(2**62), 2**63 - 1
NUMBER_MAX = 10**18
LOWER = ("minimum", "exclusiveMinimum")
UPPER = ("maximum", "exclusiveMaximum")


def with_near_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with such bounds."""
    return rewritten(schema, _near)


def _near(one: dict[str, Any]) -> dict[str, Any]:
    is_integer = one.get("type") == "integer"
    low, high = (INTEGER_MIN, INTEGER_MAX) if is_integer else (-NUMBER_MAX, NUMBER_MAX)
    near: dict[str, Any] = {}
    near |= {key: low for key in LOWER if _is_number(one.get(key)) and one[key] < low}
    near |= {key: high for key in UPPER if _is_number(one.get(key)) and one[key] > high}
    return {**one, **near} if near else one


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
