"""What the OpenAPI document says of reports of usage."""

from typing import Any

from tunewarden.api.administration import usage_schemas
from tunewarden.api.described import Described

USAGE = "/v1/organization/usage"
_COLUMNS = ("project_id", "user_id", "api_key_id", "model")


def _list(name: str, values: tuple[str, ...] = ()) -> dict[str, Any]:
    item = {"type": "string", **({"enum": list(values)} if values else {})}
    schema = {"type": "array", "items": item, "maxItems": 100}
    return {"name": f"{name}[]", "in": "query", "required": False, "schema": schema}


_FILTERS = [_list(name) for name in ("project_ids", "user_ids", "api_key_ids", "models")]
ROUTED = {
    f"GET {USAGE}/completions": Described(
        "usageCompletions",
        usage_schemas.UsagePage[usage_schemas.CompletionsUsage],
        parameters=[
            *_FILTERS,
            _list("group_by", (*_COLUMNS, "batch", "service_tier", "api_source")),
        ],
    ),
    f"GET {USAGE}/embeddings": Described(
        "usageEmbeddings",
        usage_schemas.UsagePage[usage_schemas.EmbeddingsUsage],
        parameters=[*_FILTERS, _list("group_by", _COLUMNS)],
    ),
}
