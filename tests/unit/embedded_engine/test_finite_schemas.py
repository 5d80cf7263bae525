"""Which schemas have a value that ends."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewarden.embedded_engine.finite_schemas import DEPTH_MAX, PARTS_MAX, has_finite_value

LEAF = {"type": "boolean"}
SELF = {"$ref": "#"}


def linked(target: Any, **more: Any) -> dict[str, Any]:
    """Return an object that must have a part."""
    return {"type": "object", "properties": {"next": target}, "required": ["next"], **more}


@pytest.mark.parametrize(
    "schema",
    [
        linked(SELF),
        {"type": "array", "items": SELF, "minItems": 1},
        {"type": "array", "prefixItems": [LEAF, SELF], "minItems": 2},
        {"type": ["array", "object"], **linked(SELF, minItems=1, items=SELF)}
        | {"type": ["array", "object"]},
        {"$defs": {"a": linked({"$ref": "#/$defs/b"}), "b": linked({"$ref": "#/$defs/a"})}}
        | {"$ref": "#/$defs/a"},
        {"$defs": {"a/b~": linked({"$ref": "#/$defs/a~1b~0"})}, "$ref": "#/$defs/a~1b~0"},
        linked({"anyOf": [SELF, linked(SELF)]}),
        {"allOf": [LEAF, SELF]},
        SELF,
    ],
)
def test_a_required_part_that_refers_back_has_no_end(schema: dict[str, Any]) -> None:
    assert not has_finite_value(schema)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        linked({"anyOf": [SELF, {"type": "null"}]}),
        {**linked(SELF), "required": []},
        {**linked(SELF), "type": ["object", "null"]},
        {key: value for key, value in linked(SELF).items() if key != "type"},
        {"type": "array", "items": SELF},
        {"type": "array", "prefixItems": [LEAF, SELF], "minItems": 1},
        {"enum": [1], **linked(SELF)},
        {"$ref": "http://elsewhere/x"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#anchor"},
        linked({"type": "array", "minItems": "many", "items": SELF}),
        # What is too large or nested too deeply is not decided.
        linked({"anyOf": [SELF] * PARTS_MAX}),
        # Whatever stands where a schema, a list or a text is due.
        {"type": 3, "anyOf": 4, "allOf": {}, "required": [None, 5], "properties": []},
        {"type": "object", "required": [{}], "properties": {"a": SELF}},
    ],
)
def test_others_have_an_end_or_are_not_decided(schema: Any) -> None:
    assert has_finite_value(schema)


def test_what_is_nested_deeply_is_not_decided() -> None:
    schema: Any = SELF
    for _ in range(DEPTH_MAX + 1):
        schema = linked(schema)
    assert has_finite_value(schema)


def test_a_long_chain_of_references_is_followed() -> None:
    parts = {f"r{at}": linked({"$ref": f"#/$defs/r{at + 1}"}) for at in range(1000)}
    for last, has_end in ((LEAF, True), ({"$ref": "#/$defs/r0"}, False)):
        schema = {"$ref": "#/$defs/r0", "$defs": {**parts, "r1000": last}}
        assert has_finite_value(schema) is has_end


NAMES = "abcd"
REFERENCES = st.sampled_from([{"$ref": f"#/$defs/{name}"} for name in NAMES])
PARTS: Any = st.recursive(
    st.one_of(REFERENCES, REFERENCES, st.just(LEAF)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
        st.builds(
            lambda part, most: {"type": "array", "items": part, "minItems": most},
            inner,
            st.integers(0, 1),
        ),
        st.builds(
            lambda one, two, needed: {
                "type": "object",
                "properties": {"x": one, "y": two},
                "required": needed,
            },
            inner,
            inner,
            st.lists(st.sampled_from("xy"), unique=True),
        ),
    ),
    max_leaves=5,
)


def has_value_of_depth(schema: Any, parts: dict[str, Any], depth: int) -> bool:
    """Look for a value with so many references within one another."""
    if "$ref" in schema:
        return depth > 0 and has_value_of_depth(parts[schema["$ref"][-1]], parts, depth - 1)
    if "anyOf" in schema:
        return any(has_value_of_depth(part, parts, depth) for part in schema["anyOf"])
    if schema["type"] == "array":
        return schema["minItems"] == 0 or has_value_of_depth(schema["items"], parts, depth)
    needed = schema.get("required", ())
    return all(has_value_of_depth(schema["properties"][name], parts, depth) for name in needed)


@settings(max_examples=300, deadline=None)
@given(parts=st.fixed_dictionaries(dict.fromkeys(NAMES, PARTS)), whole=PARTS)
def test_a_value_is_found_exactly_if_there_is_one(parts: dict[str, Any], whole: Any) -> None:
    # A value that has an end has one in which no reference stands within itself.
    expected = has_value_of_depth(whole, parts, len(NAMES))
    assert has_finite_value({**whole, "$defs": parts}) is expected
