"""A chat's messages, parsed strictly, in the form that chat templates take."""

from typing import Any

from tunewarden.chat_templates import template_message
from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, shown, unsupported, wrong_type

ROLES = ("system", "developer", "user", "assistant", "tool")
# What clients that also speak to other services send on messages and their parts: it changes nothing here.
OF_OTHER_SERVICES = ("cache_control", "reasoning_content")
# The kinds of parts, which are the names of the fields with their text. An assistant's refusal is a text, too.
PARTS = ("text", "refusal")
CALLS_MAX = 128
# Of the arguments of one call, which are JSON in a string: arrays and objects that it may have.
BRACKETS_MAX = 50_000


def parse_messages(value: Any) -> list[dict[str, Any]]:
    """Parse the messages of a chat. Raises Error(INVALID)."""
    messages = typed(value, list, "messages") or []
    if not messages:
        text = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise invalid(text, "messages", "empty_array")
    called: set[str] = set()
    return [_message(message, f"messages[{at}]", called) for at, message in enumerate(messages)]


def characters(message: dict[str, Any]) -> int:
    """Return about how many characters a parsed message has."""
    calls = message.get("tool_calls") or ()
    return len(message["content"]) + sum(len(str(call["function"])) for call in calls)


def _message(value: Any, path: str, called: set[str]) -> dict[str, Any]:
    """Parse one message; `called` are the ids of the calls so far, to which it adds its own."""
    fields = Fields(typed(value, dict, path) or {}, path)
    role = typed(fields.required("role"), str, fields.path("role"))
    if role not in ROLES:
        raise unsupported(role, ROLES, fields.path("role"))
    calls = _calls(fields, called) if role == "assistant" else []
    content = fields.take("content") if calls else fields.required("content")
    message: dict[str, Any] = {"role": role}
    message["content"] = None if content is None else _content(content, fields.path("content"))
    if calls:
        message["tool_calls"] = calls
    name = fields.text("name")
    if name is not None:
        message["name"] = name
    if role == "tool":
        message["tool_call_id"] = _answered_call(fields, called)
    # Fields of the SDK's response objects, which clients send back as history.
    fields.refuse("tool_calls", "audio")
    fields.refuse("function_call", instead="Use 'tool_calls'.")
    fields.ignore("refusal", "annotations", "parsed", *OF_OTHER_SERVICES)
    fields.finish()
    return template_message(message)


def _answered_call(fields: Fields, called: set[str]) -> str:
    path = fields.path("tool_call_id")
    answered = str(typed(fields.required("tool_call_id"), str, path))
    if answered not in called:
        text = (
            f"Invalid parameter: '{path}' names no call, but is {shown(answered)}. Messages with role 'tool' must be a response to a preceding"
            " message with 'tool_calls'."
        )
        raise invalid(text, path, "invalid_value")
    return answered


def _calls(fields: Fields, called: set[str]) -> list[dict[str, Any]]:
    path = fields.path("tool_calls")
    calls = typed(fields.take("tool_calls"), list, path) or []
    if len(calls) > CALLS_MAX:
        text = f"Invalid '{path}': array too long. Expected at most {CALLS_MAX} calls, but got {len(calls)} instead."
        raise invalid(text, path, "array_above_max_length")
    parsed = [_call(call, f"{path}[{at}]") for at, call in enumerate(calls)]
    called.update(call["id"] for call in parsed)
    return parsed


def _call(value: Any, path: str) -> dict[str, Any]:
    fields = Fields(typed(value, dict, path) or {}, path)
    name = typed(fields.required("id"), str, fields.path("id"))
    kind = typed(fields.required("type"), str, fields.path("type"))
    if kind != "function":
        raise unsupported(kind, ["function"], fields.path("type"))
    within = fields.path("function")
    function = Fields(typed(fields.required("function"), dict, within) or {}, within)
    called = typed(function.required("name"), str, function.path("name"))
    at = function.path("arguments")
    arguments = str(typed(function.required("arguments"), str, at))
    brackets = arguments.count("[") + arguments.count("{")
    if brackets > BRACKETS_MAX:
        text = f"Invalid '{at}': it may have at most {BRACKETS_MAX} arrays and objects, but has {brackets}."
        raise invalid(text, at, "invalid_value")
    # Of the SDK's `parse`, and of its streams.
    function.ignore("parsed_arguments")
    function.finish()
    fields.ignore("index")
    fields.finish()
    return {"id": name, "type": "function", "function": {"name": called, "arguments": arguments}}


def _content(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(path, "one of a string or array of objects", value)
    texts = []
    for at, part in enumerate(value):
        fields = Fields(typed(part, dict, f"{path}[{at}]") or {}, f"{path}[{at}]")
        kind = typed(fields.required("type"), str, fields.path("type"))
        if kind not in PARTS:
            raise unsupported(kind, PARTS, fields.path("type"))
        texts.append(str(typed(fields.required(kind), str, fields.path(kind))))
        fields.ignore(*OF_OTHER_SERVICES)
        fields.finish()
    return "".join(texts)
