"""The OpenAPI document as one page of plain HTML: no scripts, no external assets."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,b{font-family:ui-monospace,monospace}table{border-collapse:collapse;width:100%}"
    "td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;vertical-align:top}"
    "h3{margin-bottom:0}summary{cursor:pointer}"
)


def page(document: Mapping[str, Any]) -> str:
    """Return the page."""
    title = f"{document['info']['title']} {document['info']['version']}"
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{STYLE}</style><h1>{escape(title)}</h1>",
            '<p>Machine-readable: <a href="/openapi.json">openapi.json</a>.</p>',
            "<h2>Routes</h2>",
            *_routes(document),
            "<h2>Schemas</h2>",
            *_schemas(document),
            "</html>",
        ]
    )


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"<h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3>"
            needs = "" if operation["security"] else " No key is needed."
            yield f"<p>{escape(operation.get('description', operation['summary']))}{needs}</p>"
            if operation["parameters"]:
                yield from _table(
                    (f"{one['name']} ({one['in']})", one["schema"], one["required"])
                    for one in operation["parameters"]
                )
            for media, held in operation.get("requestBody", {}).get("content", {}).items():
                yield f"<p>Body: <code>{media}</code> {_type(held['schema'])}</p>"
            for media, held in operation["responses"].get("200", {}).get("content", {}).items():
                yield f"<p>Answer: <code>{media}</code> {_type(held['schema'])}</p>"


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<details open id="{escape(name)}"><summary><b>{escape(name)}</b></summary>'
        yield f"<p>{escape(schema.get('description', ''))}</p>"
        if "enum" in schema:
            yield f"<p>One of {escape(', '.join(map(str, schema['enum'])))}.</p>"
        else:
            required = schema.get("required", [])
            yield from _table(
                (field, held, field in required) for field, held in schema["properties"].items()
            )
        yield "</details>"


def _table(rows: Iterator[tuple[str, Mapping[str, Any], bool]]) -> Iterator[str]:
    yield "<table><tr><th>name<th>type<th>"
    for name, schema, is_required in rows:
        notes = ["required"] if is_required else []
        notes += [
            f"{key}: {schema[key]}" for key in ("default", "minimum", "maximum") if key in schema
        ]
        notes += [schema[key] for key in ("description",) if key in schema]
        yield f"<tr><td><code>{escape(name)}</code><td>{_type(schema)}<td>{escape(', '.join(notes))}"
    yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema's type as HTML, with links to named schemas."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema:
        return escape(" | ".join(map(repr, schema["enum"])))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("contentMediaType", schema.get("type", "anything"))))
