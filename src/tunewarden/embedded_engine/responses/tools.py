"""The tools of a response, and which of them may be called, as a chat has them."""

from collections.abc import Sequence
from typing import Any, Final

from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, shown, unsupported, wrong_type

CHOICES: Final = ("none", "auto", "required")
OF_FUNCTION: Final = ("name", "description", "parameters", "strict")


def tools_of(value: Any) -> list[dict[str, Any]]:
    """Return a chat's `tools`. Raises Error(INVALID) that names the parameter."""
    return [
        _tool(tool, f"tools[{at}]") for at, tool in enumerate(typed(value, list, "tools") or [])
    ]


def choice_of(value: Any, tools: Sequence[dict[str, Any]]) -> tuple[Any, Sequence[dict[str, Any]]]:
    """Return a chat's `tool_choice`, and the tools that are left where the choice is among some of them."""
    if value is None:
        return None, tools
    if isinstance(value, str):
        if value not in CHOICES:
            raise _no_choice(value)
        return value, tools
    fields = Fields(_object(value, "tool_choice"), "tool_choice")
    kind = typed(fields.required("type"), str, fields.path("type"))
    if kind == "function":
        name = typed(fields.required("name"), str, fields.path("name"))
        fields.finish()
        return {"type": "function", "function": {"name": name}}, tools
    if kind != "allowed_tools":
        raise _no_choice(kind)
    mode = typed(fields.required("mode"), str, fields.path("mode"))
    if mode not in {"auto", "required"}:
        raise unsupported(mode, ["auto", "required"], fields.path("mode"))
    allowed = _allowed(fields.required("tools"), {tool["function"]["name"] for tool in tools})
    fields.finish()
    return mode, [tool for tool in tools if tool["function"]["name"] in allowed]


def _tool(value: Any, path: str) -> dict[str, Any]:
    fields = Fields(_object(value, path), path)
    kind = typed(fields.required("type"), str, fields.path("type"))
    if kind != "function":
        text = f"Unsupported value: '{fields.path('type')}' does not support {shown(kind)} with this model."
        text += ' Only "function" is supported.'
        raise invalid(text, fields.path("type"), "unsupported_value")
    fields.refuse("defer_loading", "output_schema", "async")
    fields.refuse_but("allowed_callers", ["direct"])
    found = {name: fields.take(name) for name in OF_FUNCTION}
    fields.finish()
    function = {name: one for name, one in found.items() if one is not None}
    if type(function.get("name")) is not str:
        raise invalid(
            f"Missing required parameter: '{path}.name'.",
            f"{path}.name",
            "missing_required_parameter",
        )
    return {"type": "function", "function": function}


def _allowed(value: Any, names: set[str]) -> set[str]:
    path = "tool_choice.tools"
    allowed = set()
    for at, tool in enumerate(typed(value, list, path) or []):
        fields = Fields(_object(tool, f"{path}[{at}]"), f"{path}[{at}]")
        name = typed(fields.required("name"), str, fields.path("name"))
        if fields.take("type") != "function" or name not in names:
            text = f"Tool choice {shown(name)} not found in 'tools' parameter."
            raise invalid(text, fields.path("name"), "invalid_value")
        allowed.add(name)
    return allowed


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    return value


def _no_choice(value: Any) -> Exception:
    return unsupported(value, (*CHOICES, "function", "allowed_tools"), "tool_choice")
