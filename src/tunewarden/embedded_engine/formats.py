"""What a request says of the form of its answers: OpenAI's `response_format`, and `structured_outputs` as vLLM spells it."""

import re
from typing import Any

import msgspec

from tunewarden.embedded_engine.constraints import Constraint, Schema
from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, shown, unsupported
from tunewarden.invalid_values import wrong_type as wrong

FORMAT = "response_format"
STRUCTURED = "structured_outputs"
FORMATS = ("text", "json_object", "json_schema")
KINDS = ("json", "regex", "choice", "grammar", "json_object")
FORMAT_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
CHOICES_MAX = 1000
ANY_OBJECT: Schema = {"type": "object"}


def parse_constraint(fields: Fields) -> Constraint | None:
    """Return what every choice must look like, or None. Raises Error(INVALID) that names the parameter."""
    asked = _response_format(typed(fields.take(FORMAT), dict, FORMAT))
    more = _structured_outputs(typed(fields.take(STRUCTURED), dict, STRUCTURED))
    if asked is not None and more is not None:
        text = f"'{STRUCTURED}' is not taken together with '{FORMAT}'. Use one of them."
        raise invalid(text, STRUCTURED, "invalid_value")
    return asked or more


def _response_format(value: dict[str, Any] | None) -> Constraint | None:
    if value is None:
        return None
    fields = Fields(value, FORMAT)
    kind = typed(fields.required("type"), str, fields.path("type"))
    if kind not in FORMATS:
        raise unsupported(kind, FORMATS, fields.path("type"))
    described = fields.required("json_schema") if kind == "json_schema" else None
    fields.finish()
    if kind == "json_schema":
        return _json_schema(typed(described, dict, f"{FORMAT}.json_schema") or {})
    return Constraint.of_schema(ANY_OBJECT, FORMAT) if kind == "json_object" else None


def _json_schema(value: dict[str, Any]) -> Constraint:
    fields = Fields(value, f"{FORMAT}.json_schema")
    name = str(typed(fields.required("name"), str, fields.path("name")))
    if not FORMAT_NAME.fullmatch(name):
        text = f"Invalid '{fields.path('name')}': Expected 1 to 64 of a-z, A-Z, 0-9, '_' and '-', but got {shown(name)}."
        raise invalid(text, fields.path("name"), "invalid_value")
    fields.text("description")
    strict = fields.flag("strict")
    schema = fields.take("schema")
    fields.finish()
    if schema is None:
        schema = ANY_OBJECT
    typed(schema, dict, fields.path("schema"))
    subject = f"schema for {FORMAT} '{name}'"
    return Constraint.of_schema(schema, FORMAT, strict=strict, subject=subject)


def _structured_outputs(value: dict[str, Any] | None) -> Constraint | None:
    if value is None:
        return None
    fields = Fields(value, STRUCTURED)
    is_compact = fields.flag("disable_any_whitespace")
    fields.refuse_but("disable_additional_properties", harmless=False)
    fields.refuse("whitespace_pattern", "structural_tag")
    asked = {kind: fields.take(kind) for kind in KINDS}
    fields.finish()
    if asked["json_object"] is False:
        asked["json_object"] = None
    kinds = [kind for kind, one in asked.items() if one is not None]
    if len(kinds) != 1:
        listed = ", ".join(f"'{kind}'" for kind in KINDS)
        got = ", ".join(f"'{kind}'" for kind in kinds) or "none"
        text = f"Invalid '{STRUCTURED}': Expected exactly one of {listed}, but got {got}."
        raise invalid(text, STRUCTURED, "invalid_value")
    path = fields.path(kinds[0])
    return _of_kind(kinds[0], asked[kinds[0]], path, is_compact=is_compact)


def _of_kind(kind: str, value: Any, path: str, *, is_compact: bool) -> Constraint:
    if kind == "json":
        return Constraint.of_schema(_schema(value, path), path, compact=is_compact)
    if kind == "json_object":
        typed(value, bool, path)
        return Constraint.of_schema(ANY_OBJECT, path, compact=is_compact)
    if kind == "choice":
        return Constraint.of_choices(_choices(value, path), path)
    text = str(typed(value, str, path))
    return Constraint.of_regex(text, path) if kind == "regex" else Constraint.of_grammar(text, path)


def _schema(value: Any, path: str) -> dict[str, Any]:
    """Return a schema, which may come as a text of JSON."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(
                f"Invalid '{path}': it is not JSON: {shown(value)}.", path, "invalid_value"
            ) from error
    if not isinstance(value, dict):
        raise wrong(path, "an object, or a string of JSON", value)
    return value


def _choices(value: Any, path: str) -> list[str]:
    choices = typed(value, list, path) or []
    if not 0 < len(choices) <= CHOICES_MAX:
        text = f"Invalid '{path}': Expected 1 to {CHOICES_MAX} strings, but got {len(choices)}."
        raise invalid(text, path, "invalid_value")
    for at, one in enumerate(choices):
        if not isinstance(one, str):
            raise wrong(f"{path}[{at}]", "a string", one)
    return choices
