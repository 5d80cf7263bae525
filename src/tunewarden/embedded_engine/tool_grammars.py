"""What an answer must look like if a tool must be called, or if a call's arguments must follow their schema."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tunewarden.embedded_engine.constraints import Constraint, either, json_rule
from tunewarden.embedded_engine.finite_schemas import ENDLESS, has_finite_value
from tunewarden.embedded_engine.tools import Function, Tools
from tunewarden.invalid_values import invalid
from tunewarden.tool_formats import Layout, ToolFormat

PARAM = "tools"
KEY = re.compile(r'"(\w+)"\s*:')


def tool_constraint(
    tools: Tools,
    found: ToolFormat | None,
    special: Mapping[int, str],
    answer: Constraint | None = None,
) -> Constraint | None:
    """Return the constraint, or None if the model may say what it likes.

    `special` are the marks that are tokens which `is_special` tells. `answer` is what an answer without calls must
    look like, if not anything. Raises Error(INVALID) if a call must be made and there is no way to write one.
    """
    if not tools.is_forced and answer is not None:
        if found is None or answer.may_be_gbnf:
            return answer
        if not found.is_bare:
            return either(_Grammar(tools, found, special).calls_or, answer, PARAM)
        calls = _calls_as_json(tools, found)
        if calls is None:
            return answer
        return either(lambda other: f"start: calls | {other}\n{calls}", answer, PARAM)
    if not tools.constrains or (found is None and not tools.is_forced):
        return None
    if found is None:
        message = (
            "Unsupported value: 'tool_choice' cannot force a call with this model, whose chat template knows no tools."
            ' Only "none" and "auto" are supported.'
        )
        raise invalid(message, "tool_choice", "unsupported_value")
    return Constraint.of_lark(_Grammar(tools, found, special).text(), PARAM)


def is_special(token: Any) -> bool:
    """Return whether a grammar names a token of the vocabulary's added ones (AddedToken): to llguidance it is no text."""
    written: str = token.content
    return bool(token.special) or (written.startswith("<") and written.endswith(">"))


class _Grammar:
    """Writes one grammar in llguidance's form of Lark."""

    def __init__(self, tools: Tools, found: ToolFormat, special: Mapping[int, str]) -> None:
        self._tools = tools
        self._format = found
        self._special = special

    def text(self) -> str:
        """Return the grammar."""
        return self._with(self._forced() if self._tools.is_forced else self._free())

    def calls_or(self, other: str) -> str:
        """Return the grammar of calls, or of another rule."""
        return self._with(f"start: calls | {other}\n{self._forced('calls')}")

    def _with(self, rules: str) -> str:
        """Return rules with those of the functions."""
        called = "\n".join(
            f"call_{at}: {self._literal(function.name + self._format.middle)} {_arguments(function)}"
            for at, function in enumerate(self._tools.allowed)
        )
        return f"{rules}\nfunction: {_any_call(self._tools)}\n{called}\n"

    def _forced(self, name: str = "start") -> str:
        """Calls, and nothing else, as a rule."""
        opening, closing = self._literal(self._format.opening), self._literal(self._format.closing)
        if not self._tools.is_parallel or self._format.layout is Layout.OBJECTS:
            return f"{name}: {opening} function {closing}"
        if self._format.layout is Layout.LIST:
            return f"{name}: {opening} function ({self._between()} function)* {closing}"
        between = ' "\\n"?' if self._format.layout is Layout.OBJECT else ""
        return f"{name}: call ({between} call)*\ncall: {opening} function {closing}"

    def _free(self) -> str:
        """Text with or without calls."""
        begin, layout = self._format.begin, self._format.layout
        closing = self._literal(self._format.closing)
        if self._format.is_bare:
            opening = self._literal(self._format.opening)
            return f"start: TEXT | {opening} function {closing}\nTEXT: /([^{{\\s](.|\\n)*)?/"
        rest = self._literal(self._format.opening.removeprefix(begin))
        inner = f"function ({self._between()} function)*" if layout is Layout.LIST else "function"
        call = f"{rest} {inner} {closing}"
        # Only behind an end mark may text follow.
        tail = "TEXT" if self._format.end else ""
        if begin in self._special.values():
            return f"start: TEXT ({self._literal(begin)} {call} {tail})*\nTEXT: /(.|\\n)*/"
        mark = _quoted(begin)
        return (
            f"start: TEXT | (begun {call})+ {tail}\nbegun[lazy]: ANY {mark}\n"
            f"TEXT: ~(ANY {mark} ANY)\nANY: /(.|\\n)*/"
        )

    def _between(self) -> str:
        """Return what stands between two calls of a list."""
        return self._literal("}, {" + self._format.opening.rpartition("{")[2])

    def _literal(self, text: str) -> str:
        """Return a text, with its marks that are special tokens as such."""
        for token, mark in self._special.items():
            before, is_there, after = text.partition(mark)
            if is_there:
                return f"{self._literal(before)} <[{token}]> {self._literal(after)}".strip()
        return _quoted(text) if text else ""


def _calls_as_json(tools: Tools, found: ToolFormat) -> str | None:
    """Return the rules of bare calls, which are JSON; None if a function's schema refers to parts of itself.

    Beside other JSON it cannot be written as text: where two texts begin alike, the library goes on with the longer one
    and does not come back.
    """
    *_, key = KEY.findall(found.middle)
    schemas = [_checked(function) for function in tools.allowed]
    if "$ref" in repr(schemas):
        return None
    rules = []
    for at, (function, schema) in enumerate(zip(tools.allowed, schemas, strict=True)):
        call = {
            "type": "object",
            "properties": {"name": {"const": function.name}, key: schema},
            "required": ["name", key],
            "additionalProperties": False,
        }
        rules.append(f"call_{at}: {json_rule(call, strict=function.is_strict)}")
    return "\n".join([f"calls: {_any_call(tools)}", *rules])


def _any_call(tools: Tools) -> str:
    return " | ".join(f"call_{at}" for at in range(len(tools.allowed)))


def _arguments(function: Function) -> str:
    """Return the rule of a function's arguments; a schema that is not strict is followed as far as it can be."""
    return json_rule(_checked(function), strict=function.is_strict)


def _checked(function: Function) -> dict[str, Any]:
    """Return the schema of a function's arguments. Raises Error(INVALID)."""
    if not function.parameters:
        return {"type": "object", "properties": {}}
    kind = function.parameters.get("type", "object")
    if kind != "object":
        message = (
            f"Invalid schema for function '{function.name}': schema must be of 'type: \"object\"'."
        )
        raise invalid(message, PARAM, "invalid_function_parameters")
    if not has_finite_value(function.parameters):
        message = f"Invalid schema for function '{function.name}': {ENDLESS}."
        raise invalid(message, PARAM, "invalid_function_parameters")
    return {**function.parameters, "type": "object"}


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
