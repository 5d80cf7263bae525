"""Changes every schema within a JSON schema."""

from collections.abc import Callable
from typing import Any

# Keywords whose values are maps of names to schemas, and those whose values hold none.
MAPS = frozenset({"properties", "$defs", "definitions"})
VALUES = frozenset({"const", "default", "enum", "examples", "required"})
# Schemas that are looked at on the event loop: some milliseconds. A larger one stays as it is.
SCHEMAS_MAX = 5_000
DEPTH_MAX = 64


class Unchanged(Exception):
    """The whole schema stays as it is."""


def rewritten(
    schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Return the schema with each part changed, inner ones first.

    As it is if it is too large, or if `change` raises Unchanged.
    """
    seen = 0

    def walk(one: Any, depth: int) -> Any:
        nonlocal seen
        seen += 1
        if seen > SCHEMAS_MAX or depth > DEPTH_MAX:
            raise Unchanged
        if isinstance(one, list):
            return [walk(part, depth + 1) for part in one]
        if not isinstance(one, dict):
            return one
        return change({key: below(key, value, depth + 1) for key, value in one.items()})

    def below(key: str, value: Any, depth: int) -> Any:
        if key in VALUES:
            return value
        if key in MAPS and isinstance(value, dict):
            return {name: walk(part, depth + 1) for name, part in value.items()}
        return walk(value, depth)

    try:
        found: dict[str, Any] = walk(schema, 0)
    except Unchanged:
        return schema
    return found
