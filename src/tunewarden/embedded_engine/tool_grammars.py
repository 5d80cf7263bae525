"""What an answer must look like if a tool must be called, or if a call's arguments must follow their schema."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tunewarden.embedded_engine.constraints import Constraint, json_rule
from tunewarden.embedded_engine.tools import Function, Tools
from tunewarden.invalid_values import invalid
from tunewarden.tool_formats import Layout, ToolFormat

PARAM = "tools"


def tool_constraint(
    tools: Tools, found: ToolFormat | None, special: Mapping[int, str]
) -> Constraint | None:
    """Return the constraint, or None if the model may say what it likes.

    `special` are the marks that are tokens which `is_special` tells. Raises Error(INVALID) if a call must be
    made and there is no way to write one.
    """
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
        called = "\n".join(
            f"call_{at}: {self._literal(function.name + self._format.middle)} {_arguments(function)}"
            for at, function in enumerate(self._tools.allowed)
        )
        either = " | ".join(f"call_{at}" for at in range(len(self._tools.allowed)))
        rules = self._forced() if self._tools.is_forced else self._free()
        return f"{rules}\nfunction: {either}\n{called}\n"

    def _forced(self) -> str:
        """Calls, and nothing else."""
        opening, closing = self._literal(self._format.opening), self._literal(self._format.closing)
        if not self._tools.is_parallel or self._format.layout is Layout.OBJECTS:
            return f"start: {opening} function {closing}"
        if self._format.layout is Layout.LIST:
            return f"start: {opening} function ({self._between()} function)* {closing}"
        between = ' "\\n"?' if self._format.layout is Layout.OBJECT else ""
        return f"start: call ({between} call)*\ncall: {opening} function {closing}"

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


def _arguments(function: Function) -> str:
    """Return the rule of a function's arguments; a schema that is not strict is followed as far as it can be."""
    if not function.parameters:
        return json_rule({"type": "object", "properties": {}})
    kind = function.parameters.get("type", "object")
    if kind != "object":
        message = (
            f"Invalid schema for function '{function.name}': schema must be of 'type: \"object\"'."
        )
        raise invalid(message, PARAM, "invalid_function_parameters")
    return json_rule({**function.parameters, "type": "object"}, strict=function.is_strict)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
