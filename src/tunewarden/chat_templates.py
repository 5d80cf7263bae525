"""Gives chats to a base's chat template: in one way, in training and in inference."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from tunewarden.tool_formats import PROBE_ARGUMENTS, PROBE_NAME, ToolFormat, rendered_format

# What a template raises on messages that it does not accept.
TEMPLATE_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    RecursionError,
)
# Mistral's templates refuse ids of another length.
SHORT_ID_CHARACTERS = 9


def template_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as templates want it: content is text, the older calls are tool calls.

    Raises TypeError if its content is not text.
    """
    plain = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str | None):
        raise TypeError("the content is not text")
    plain["content"] = content or ""
    older = plain.pop("function_call", None)
    calls = message.get("tool_calls") or (
        [{"type": "function", "function": older}] if older else []
    )
    plain.pop("tool_calls", None)
    if calls:
        plain["tool_calls"] = [_template_call(call) for call in calls]
    if plain["role"] == "function":
        plain["role"] = "tool"
    return plain


def _template_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call whose arguments are an object: templates write it as JSON themselves."""
    function = dict(call["function"])
    if isinstance(function["arguments"], str):
        with contextlib.suppress(ValueError, RecursionError):  # Else it stays as it is written.
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "function": function}


def render(
    tokenizer: Any, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, **options: Any
) -> Any:
    """Return what the base's template makes of messages and tools. Raises one of TEMPLATE_ERRORS.

    `options` are those of `apply_chat_template`.
    """
    shown = list(tools) if tools else None
    try:
        return tokenizer.apply_chat_template(list(messages), tools=shown, **options)
    except TemplateError:
        shorter = [_with_short_ids(message) for message in messages]
        if shorter == list(messages):
            raise
        return tokenizer.apply_chat_template(shorter, tools=shown, **options)


def tool_format(tokenizer: Any) -> ToolFormat | None:
    """Return how the base's template writes calls of tools, by rendering one; None if it does not, or is unknown."""
    if not tokenizer.chat_template:
        return None
    function = {"name": PROBE_NAME, "description": "", "parameters": {"type": "object"}}
    call = {"name": PROBE_NAME, "arguments": PROBE_ARGUMENTS}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
    ]
    try:
        text = render(
            tokenizer, messages, [{"type": "function", "function": function}], tokenize=False
        )
    except TEMPLATE_ERRORS:
        return None
    return rendered_format(str(text))


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose ids of calls have nine characters, the same for the same id."""
    shorter = dict(message)
    if "tool_call_id" in message:
        shorter["tool_call_id"] = _short(message["tool_call_id"])
    if "tool_calls" in message:
        shorter["tool_calls"] = [
            {**call, "id": _short(call.get("id", ""))} for call in message["tool_calls"]
        ]
    return shorter


def _short(name: str) -> str:
    if len(name) == SHORT_ID_CHARACTERS and name.isalnum():
        return name
    return hashlib.sha256(str(name).encode()).hexdigest()[:SHORT_ID_CHARACTERS]
