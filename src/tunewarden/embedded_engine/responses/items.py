"""The input of a response, as a chat's messages."""

from typing import Any, Final

from tunewarden.embedded_engine.chat_messages import OF_OTHER_SERVICES
from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.invalid_values import invalid, unsupported, wrong_type

ROLES: Final = ("user", "assistant", "system", "developer")
# What an item may have beside what is read here: answers have it, and clients send answers back.
OF_ITEMS: Final = ("id", "status", "phase", "caller", "namespace", *OF_OTHER_SERVICES)
OF_PARTS: Final = ("annotations", "logprobs", "prompt_cache_breakpoint", *OF_OTHER_SERVICES)
# The part of a message -> the field with its text.
PARTS: Final = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
KINDS: Final = ("message", "function_call", "function_call_output", "reasoning")

Message = dict[str, Any]


def messages_of(value: Any, instructions: str | None) -> list[Message]:
    """Return the messages. Raises Error(INVALID) that names the parameter.

    Calls stand in the message that they follow, as in a chat. Reasoning is left out: no model here has any.
    """
    messages: list[Message] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    if isinstance(value, str):
        return [*messages, {"role": "user", "content": value}]
    if not isinstance(value, list):
        raise wrong_type("input", "one of a string or array of objects", value)
    if not value:
        text = "Invalid 'input': empty array. Expected an array with minimum length 1."
        raise invalid(text, "input", "empty_array")
    for at, item in enumerate(value):
        path = f"input[{at}]"
        _add(Fields(typed(item, dict, path) or {}, path), messages)
    return messages


def _add(fields: Fields, messages: list[Message]) -> None:
    kind = fields.text("type") or "message"
    match kind:
        case "message":
            messages.append(_message(fields))
        case "function_call":
            _add_call(fields, messages)
        case "function_call_output":
            messages.append(_output(fields))
        case "reasoning":
            return
        case "item_reference":
            text = f"Unsupported value: '{fields.path('type')}' does not support \"{kind}\" with this model."
            text += " Responses are not stored: send the item itself."
            raise invalid(text, fields.path("type"), "unsupported_value")
        case _:
            raise unsupported(kind, KINDS, fields.path("type"))
    fields.ignore(*OF_ITEMS)
    fields.finish()


def _message(fields: Fields) -> Message:
    role = typed(fields.required("role"), str, fields.path("role")) or ""
    if role not in ROLES:
        raise unsupported(role, ROLES, fields.path("role"))
    return {"role": role, "content": _text(fields, "content")}


def _add_call(fields: Fields, messages: list[Message]) -> None:
    call = {
        "id": _string(fields, "call_id"),
        "type": "function",
        "function": {"name": _string(fields, "name"), "arguments": _string(fields, "arguments")},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    messages[-1].setdefault("tool_calls", []).append(call)


def _output(fields: Fields) -> Message:
    call = _string(fields, "call_id")
    fields.ignore("name")
    return {"role": "tool", "tool_call_id": call, "content": _text(fields, "output")}


def _text(fields: Fields, name: str) -> str:
    """Return a text that is a string or an array of parts."""
    value, path = fields.required(name), fields.path(name)
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong_type(path, "one of a string or array of objects", value)
    return "".join(_part(part, f"{path}[{at}]") for at, part in enumerate(value))


def _part(value: Any, path: str) -> str:
    fields = Fields(typed(value, dict, path) or {}, path)
    kind = _string(fields, "type")
    if kind not in PARTS:
        raise unsupported(kind, tuple(PARTS), fields.path("type"))
    text = _string(fields, PARTS[kind])
    fields.ignore(*OF_PARTS)
    fields.finish()
    return text


def _string(fields: Fields, name: str) -> str:
    return typed(fields.required(name), str, fields.path(name)) or ""
