"""Schemas whose objects have no other properties than they name, unless they say so.

By JSON Schema an object may have any others, so a weak model would add some to the end of its tokens. vLLM's default
backend closes objects too. A schema in which parts describe one object together (`allOf`, `anyOf` beside `properties`)
stays as it is: closing a part would forbid what another one names.
"""

from typing import Any

# Keywords whose values are maps of names to schemas, and those whose values hold none.
MAPS = frozenset({"properties", "$defs", "definitions"})
VALUES = frozenset({"const", "default", "enum", "examples", "required"})
# Beside `properties`: what says more about the same object.
OPENS = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties"})
COMBINES = frozenset({"$ref", "allOf", "anyOf", "dependentSchemas", "if", "not", "oneOf"})
# Schemas that are looked at on the event loop: some milliseconds. A larger one stays as it is.
SCHEMAS_MAX = 5_000
DEPTH_MAX = 64


class _Kept(Exception):
    """The schema stays as it is."""


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with `additionalProperties: false` where an object names properties and says nothing of others."""
    seen = 0

    def walk(one: Any, depth: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > SCHEMAS_MAX or depth > DEPTH_MAX:
            raise _Kept
        if isinstance(one, list):
            return [walk(part, depth + 1) for part in one]
        if not isinstance(one, dict):
            return one
        if "allOf" in one or ("properties" in one and COMBINES & one.keys()):
            raise _Kept
        found = {key: below(key, value, depth + 1) for key, value in one.items()}
        if "properties" in one and not OPENS & one.keys():
            found["additionalProperties"] = False
        return found

    def below(key: str, value: Any, depth: int) -> Any:
        if key in VALUES:
            return value
        if key in MAPS and isinstance(value, dict):
            return {name: walk(part, depth + 1) for name, part in value.items()}
        return walk(value, depth)

    try:
        found: dict[str, Any] = walk(schema, 0)
    except _Kept:
        return schema
    return found
