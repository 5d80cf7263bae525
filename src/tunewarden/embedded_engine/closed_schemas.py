"""Schemas whose objects have no other properties than they name, unless they say so.

By JSON Schema an object may have any others, so a weak model would add some to the end of its tokens. vLLM's default
backend closes objects too. A schema in which parts describe one object together (`allOf`, `anyOf` beside `properties`)
stays as it is: closing a part would forbid what another one names.
"""

from typing import Any

from tunewarden.embedded_engine.schema_parts import Unchanged, rewritten

# Beside `properties`: what says more about the same object.
OPENS = frozenset({"additionalProperties", "patternProperties", "unevaluatedProperties"})
COMBINES = frozenset({"$ref", "allOf", "anyOf", "dependentSchemas", "if", "not", "oneOf"})


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with `additionalProperties: false` where an object names properties and says nothing of others."""
    return rewritten(schema, _closed)


def _closed(one: dict[str, Any]) -> dict[str, Any]:
    if "allOf" in one or ("properties" in one and COMBINES & one.keys()):
        raise Unchanged
    if "properties" in one and not OPENS & one.keys():
        return {**one, "additionalProperties": False}
    return one
