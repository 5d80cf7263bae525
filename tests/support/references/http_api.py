"""docs/reference/http.md: every route, as `/openapi.json` describes it, with who may ask, as the golden table has it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import golden_authorization
from tests.support.golden_authorization import Row
from tests.support.references import pages

from tunewarden.api import openapi
from tunewarden.api.routes import ROUTERS
from tunewarden.identity.policy import SCOPES

GOLDEN = Path(__file__).parents[2] / "golden/authorization.txt"
# In the order of the page: a heading, and how the paths below it begin. The first that fits counts.
GROUPS = (
    ("Inference", ("/v1/chat", "/v1/completions", "/v1/responses", "/v1/embeddings")),
    ("Models and aliases", ("/v1/models", "/v1/aliases")),
    ("Files and uploads", ("/v1/files", "/v1/uploads")),
    ("Fine-tuning", ("/v1/fine_tuning",)),
    ("Deletions, holds, retention", ("/v1/deletion", "/v1/holds", "/v1/retention")),
    ("Webhooks", ("/v1/webhook",)),
    ("Administration", ("/v1/organization",)),
    ("The log", ("/log", "/.well-known")),
    ("The server", ("/",)),
)
REFUSED = {"401", "403"}
# Which keys a route admits, from the least: the golden table's columns, and the words of the reference of roles.
ROLES = (
    ("viewer", "a viewer, a member or an Owner"),
    ("member", "a member or an Owner"),
    ("owner", "an Owner"),
)
# A route that more scopes admit asks for none.
SCOPES_MAX = 4
WHOLE = ("api.all", "api.all.read")


def described() -> dict[str, Any]:
    """Return `/openapi.json`, without a server."""
    return openapi.document(
        [one for router in ROUTERS for one in router.routes], docs_are_open=False
    )


def markdown() -> str:
    """Return the generated part of the page."""
    document = described()
    rows: dict[str, list[Row]] = {}
    # Routes of the administration are not in it: an admin key asks for them, and nothing else does.
    for row in golden_authorization.read(GOLDEN):
        rows.setdefault(row.route.replace(":path", ""), []).append(row)
    parts = {heading: f"## {heading}\n\n" for heading, _ in GROUPS}
    for path in sorted(document["paths"], key=_place):
        heading = next(one for one, begins in GROUPS if path.startswith(begins))
        for method, operation in document["paths"][path].items():
            route = f"{method.upper()} {path}"
            parts[heading] += "".join(_route(route, operation, rows.get(route, []), document))
    return "".join(parts.values())


def _place(path: str) -> int:
    """Order routes as GROUPS does, and otherwise as they are declared."""
    return [path.startswith(begin) for _, begins in GROUPS for begin in begins].index(True)


def _route(
    route: str, operation: Mapping[str, Any], rows: Sequence[Row], document: Mapping[str, Any]
) -> Iterator[str]:
    yield f"### `{route}`\n\n"
    said = " ".join(operation.get("description", operation["summary"]).split())
    yield f"{pages.wrapped(said)}\n\n"
    for fact in _facts(operation, rows):
        yield f"{pages.wrapped(f'- {fact}')}\n"
    yield "\n"
    members = [
        (one["name"], one["in"], one["schema"], one.get("required", False))
        for one in operation["parameters"]
        if one["in"] != "path"
    ]
    for media, held in operation.get("requestBody", {}).get("content", {}).items():
        where = "form" if media.startswith("multipart") else "body"
        members += _members(held["schema"], where, document)
    if members:
        yield "| parameter | in | type | |\n|---|---|---|---|\n"
        for name, where, schema, is_required in members:
            yield f"| `{name}` | {where} | {_type(schema)} | {_notes(schema, is_required=is_required)} |\n"
        yield "\n"


def _facts(operation: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[str]:
    yield f"`operationId`: `{operation['operationId']}`"
    yield f"Who: {_admitted(operation, rows)}"
    answers = operation["responses"].get("200", {}).get("content", {})
    if answers:
        kinds = (f"{_named(held['schema'])}`{media}`" for media, held in answers.items())
        yield f"Answer: {', '.join(kinds)}"
    told = {one for one in operation["responses"] if one.startswith(("4", "5"))}
    found = {one for row in rows for one in row.found.values() if one.startswith("4")}
    if refusals := sorted(told | found):
        yield f"Refusals: {', '.join(refusals)}"


def _admitted(operation: Mapping[str, Any], rows: Sequence[Row]) -> str:
    if not operation["security"]:
        return "everybody, without a key"
    if not rows:
        return "an admin key"
    found = rows[0].found
    if found["outside"] not in REFUSED:
        return "any API key"
    least = next((words for name, words in ROLES if found[name] not in REFUSED), "nobody")
    admitted = [one for one in SCOPES if found[one] not in REFUSED]
    narrow = [one for one in admitted if one not in WHOLE] or admitted
    scopes = [f"`{one}`" for one in narrow]
    needs = f", with the scope {' or '.join(sorted(scopes))}" if len(scopes) < SCOPES_MAX else ""
    return f"an API key of {least}{needs}"


def _members(
    schema: Mapping[str, Any], where: str, document: Mapping[str, Any]
) -> list[tuple[str, str, Mapping[str, Any], bool]]:
    held = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    required = held.get("required", [])
    return [(name, where, one, name in required) for name, one in held["properties"].items()]


def _named(schema: Mapping[str, Any]) -> str:
    return (
        f"{schema['$ref'].rpartition('/')[2].strip('_').replace('_', ' of ')}, "
        if "$ref" in schema
        else ""
    )


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]  # type: ignore[no-any-return]  # a text
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("contentMediaType", schema.get("type", "anything")))


def _notes(schema: Mapping[str, Any], *, is_required: bool) -> str:
    notes = ["required"] if is_required else []
    for name, words in (("default", "default"), ("minimum", "from"), ("maximum", "to")):
        for held in (schema, *schema.get("anyOf", ())):
            given = held.get(name)
            notes += [] if given in (None, []) else [f"{words} {json.dumps(given)}"]
    if "description" in schema:
        notes.append(schema["description"].replace("\n", " ").replace("|", "\\|"))
    return ", ".join(notes)
