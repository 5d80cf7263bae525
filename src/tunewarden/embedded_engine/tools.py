"""The tools of a chat request, and whether one must be called. Knows no tokenizer."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, shown, unsupported, wrong_type

TOOLS_MAX = 128
# Of all tools, as JSON.
BYTES_MAX = 256 * 1024
# Of the schema of one function's parameters.
DEPTH_MAX = 32
NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
CHOICES = "'none', 'auto', 'required', and objects of type 'function' and 'allowed_tools'"


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called. `parameters` is a JSON Schema, which a strict one's arguments must follow."""

    name: str
    parameters: dict[str, Any]
    is_strict: bool


@dataclass(frozen=True, slots=True)
class Tools:
    """What a template is shown (`offered`), and what may be called of it.

    `is_forced`: at least one call must be made; `is_parallel`: more than one may.
    """

    offered: tuple[dict[str, Any], ...]
    allowed: tuple[Function, ...]
    is_forced: bool
    is_parallel: bool

    @property
    def constrains(self) -> bool:
        """Return whether not every text is an answer."""
        return self.is_forced or any(function.is_strict for function in self.allowed)

    @property
    def names(self) -> frozenset[str]:
        """Return the names of what may be called."""
        return frozenset(function.name for function in self.allowed)


def parse_tools(fields: Fields) -> Tools | None:
    """Parse `tools`, `tool_choice` and `parallel_tool_calls`; None if no call is wanted. Raises Error(INVALID)."""
    fields.refuse("functions", instead="Use 'tools'.")
    fields.refuse("function_call", instead="Use 'tool_choice'.")
    given = typed(fields.take("tools"), list, "tools") or []
    choice = fields.take("tool_choice")
    is_parallel = typed(fields.take("parallel_tool_calls"), bool, "parallel_tool_calls")
    functions = _functions(given)
    mode, names = _choice(choice, functions)
    if mode == "none" or not functions:
        return None
    allowed = tuple(one for one in functions.values() if names is None or one.name in names)
    is_one = is_parallel is False or _is_of(choice, "function")
    return Tools(tuple(given), allowed, is_forced=mode == "required", is_parallel=not is_one)


def _functions(given: list[Any]) -> dict[str, Function]:
    if len(given) > TOOLS_MAX:
        text = f"Invalid 'tools': array too long. Expected at most {TOOLS_MAX} tools, but got {len(given)} instead."
        raise invalid(text, "tools", "array_above_max_length")
    size = len(msgspec.json.encode(given))
    if size > BYTES_MAX:
        text = f"Invalid 'tools': too long. Expected at most {BYTES_MAX} bytes of JSON, but got {size} instead."
        raise invalid(text, "tools", "array_too_long")
    functions = [_function(tool, f"tools[{at}]") for at, tool in enumerate(given)]
    return {function.name: function for function in functions}


def _function(value: Any, path: str) -> Function:
    tool = Fields(typed(value, dict, path) or {}, path)
    kind = typed(tool.required("type"), str, tool.path("type"))
    if kind != "function":
        raise unsupported(kind, ["function"], tool.path("type"))
    within = tool.path("function")
    fields = Fields(typed(tool.required("function"), dict, within) or {}, within)
    name = _name(fields)
    fields.text("description")
    parameters = typed(fields.take("parameters"), dict, fields.path("parameters"))
    if _depth(parameters) > DEPTH_MAX:
        text = f"Invalid '{fields.path('parameters')}': at most {DEPTH_MAX} levels are taken."
        raise invalid(text, fields.path("parameters"), "invalid_value")
    is_strict = fields.flag("strict")
    fields.finish()
    tool.finish()
    return Function(name, parameters or {"type": "object", "properties": {}}, is_strict)


def _name(fields: Fields) -> str:
    name = str(typed(fields.required("name"), str, fields.path("name")))
    if not NAME.fullmatch(name):
        path = fields.path("name")
        text = (
            f"Invalid '{path}': expected 1 to 64 letters, digits, underscores and dashes, but got {shown(name)}"
            " instead."
        )
        raise invalid(text, path, "invalid_value")
    return name


def _depth(value: Any) -> int:
    """Return how deeply arrays and objects are nested; counting stops soon after DEPTH_MAX."""
    level, depth = [value], 0
    while depth <= DEPTH_MAX:
        inner = [one for one in level if isinstance(one, dict | list)]
        if not inner:
            break
        level = [
            child for one in inner for child in (one.values() if isinstance(one, dict) else one)
        ]
        depth += 1
    return depth


def _choice(value: Any, functions: dict[str, Function]) -> tuple[str, frozenset[str] | None]:
    """Return `none`, `auto` or `required`, and the names that may be called; None: all of them."""
    if value is None or isinstance(value, str):
        mode, names = _mode("auto" if value is None else value, "tool_choice"), None
    elif not isinstance(value, dict):
        raise wrong_type("tool_choice", "one of a string or an object", value)
    elif _is_of(value, "allowed_tools"):
        mode, names = _allowed(value)
    elif _is_of(value, "function"):
        mode, names = "required", frozenset([_named(value, "tool_choice")])
    else:
        raise _unknown_choice(value.get("type"), "tool_choice.type")
    if mode == "required" and not functions:
        text = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
        raise invalid(text, "tool_choice", "invalid_value")
    for name in names or ():
        if name not in functions:
            text = f"Invalid value for 'tool_choice': no function named {shown(name)} was specified in 'tools'."
            raise invalid(text, "tool_choice", "invalid_value")
    return mode, names


def _mode(value: str, path: str) -> str:
    if value not in ("none", "auto", "required"):
        raise _unknown_choice(value, path)
    return value


def _allowed(value: dict[str, Any]) -> tuple[str, frozenset[str]]:
    choice = Fields(value, "tool_choice")
    choice.take("type")
    within = choice.path("allowed_tools")
    fields = Fields(typed(choice.required("allowed_tools"), dict, within) or {}, within)
    mode = _mode(str(fields.required("mode")), fields.path("mode"))
    path = fields.path("tools")
    tools = typed(fields.required("tools"), list, path) or []
    names = frozenset(_named(tool, f"{path}[{at}]") for at, tool in enumerate(tools))
    fields.finish()
    choice.finish()
    if not names:
        raise invalid(f"Invalid '{path}': empty array.", path, "empty_array")
    return mode, names


def _named(value: Any, path: str) -> str:
    """Return the name in `{"type":"function","function":{"name":…}}`."""
    choice = Fields(typed(value, dict, path) or {}, path)
    if choice.take("type") != "function":
        raise _unknown_choice(value.get("type"), choice.path("type"))
    within = choice.path("function")
    function = Fields(typed(choice.required("function"), dict, within) or {}, within)
    return str(typed(function.required("name"), str, function.path("name")))


def _is_of(value: Any, kind: str) -> bool:
    return isinstance(value, dict) and value.get("type") == kind


def _unknown_choice(value: Any, path: str) -> Exception:
    return invalid(
        f"Invalid value: {shown(value)}. Supported values are: {CHOICES}.", path, "invalid_value"
    )
