"""Validates one training example in OpenAI's chat or preference format, key by key.

Content that cannot be trained on is refused instead of silently dropped. A Problem names the place and
the kind of error, never a value or a key of the data: it is stored in plaintext, and outlives the
file (I18).
"""

import re
from collections.abc import Mapping
from typing import Any

from tunewarden.finetuning.hyperparameters import Method

FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PARTICIPANT_NAME = re.compile(r"[^\s<|\\/>]{1,64}")
TOOLS_MAX = 128
TOOL_CALLS_MAX = 128
OPTIONS = frozenset({"tools", "functions", "parallel_tool_calls"})
# Role -> the keys allowed besides `role` and `content`.
ROLES = {
    "system": frozenset({"name"}),
    "developer": frozenset({"name"}),
    "user": frozenset({"name"}),
    "assistant": frozenset({"name", "weight", "tool_calls", "function_call", "refusal", "audio"}),
    "tool": frozenset({"tool_call_id", "name"}),
    "function": frozenset({"name"}),
}
UNTRAINABLE = {
    "image_url": "images are not supported: this server trains on text",
    "input_audio": "audio is not supported: this server trains on text",
    "file": "files are not supported: this server trains on text",
    "refusal": "refusals are not supported: give the text as content",
    "audio": "audio is not supported: this server trains on text",
}


class Problem(Exception):
    """The error of a line, as the end of a sentence that begins with `Line 3`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def check(example: Mapping[str, object], method: Method) -> int:
    """Validate an example; return the number of characters in its messages. Raises Problem."""
    return _supervised(example) if method is Method.SUPERVISED else _preference(example)


def _supervised(example: Mapping[str, object]) -> int:
    if "messages" not in example:
        if "preferred_output" in example or "input" in example:
            raise Problem(
                ": this is the preference format, but the method of the job is 'supervised';"
                " give method dpo"
            )
        if "prompt" in example:
            raise Problem(': prompt/completion pairs are not supported; give "messages"')
        raise Problem(': key "messages" is missing')
    _only(example, OPTIONS | {"messages"}, "")
    messages = _messages(example["messages"], "")
    _check_options(example, "")
    if not any(one["role"] == "assistant" and one.get("weight") != 0 for one in messages):
        raise Problem(": there is no assistant message to learn from, with a weight of 1")
    return sum(_length(one) for one in messages)


def _preference(example: Mapping[str, object]) -> int:
    if "messages" in example and "input" not in example:
        raise Problem(
            ": this is the chat format, but the method of the job is 'dpo'; give method supervised"
        )
    keys = ("input", "preferred_output", "non_preferred_output")
    for key in keys:
        if key not in example:
            raise Problem(f': key "{key}" is missing')
    _only(example, frozenset(keys), "")
    given = example["input"]
    if not isinstance(given, dict):
        raise Problem(', key "input": must be an object')
    if "messages" not in given:
        raise Problem(', input: key "messages" is missing')
    _only(given, OPTIONS | {"messages"}, ", input")
    messages = _messages(given["messages"], ", input")
    _check_options(given, ", input")
    called = _called(messages)
    for key in keys[1:]:
        output = _messages(example[key], f", {key}", called)
        if len(output) != 1 or output[0]["role"] != "assistant":
            raise Problem(f', key "{key}": must be a list of one assistant message')
        messages += output
    return sum(_length(one) for one in messages)


def _messages(
    value: object, where: str, called: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Validate messages and return them; `called` are the ids of earlier tool calls. Raises Problem."""
    if not isinstance(value, list) or not value:
        raise Problem(f'{where}, key "messages": must be a list with at least one message')
    ids = set(called)
    for position, message in enumerate(value, 1):
        here = f"{where}, message {position}"
        if not isinstance(message, dict):
            raise Problem(f"{here}: must be an object")
        _check_message(message, here)
        if message["role"] == "tool" and message["tool_call_id"] not in ids:
            raise Problem(
                f'{here}, key "tool_call_id": no earlier assistant message has a tool call with this id'
            )
        ids |= _called([message])
    return list(value)


def _check_message(message: dict[str, Any], here: str) -> None:
    if "role" not in message:
        raise Problem(f'{here}: key "role" is missing')
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise Problem(f'{here}, key "role": unrecognized value')
    if "weight" in message and role != "assistant":
        raise Problem(f'{here}, key "weight": only assistant messages have a weight')
    _only(message, ROLES[role] | {"role", "content"}, here)
    for key in ("refusal", "audio"):
        if message.get(key) is not None:
            raise Problem(f'{here}, key "{key}": {UNTRAINABLE[key]}')
    weight = message.get("weight")
    if weight is not None and (type(weight) is not int or weight not in {0, 1}):
        raise Problem(f'{here}, key "weight": must be 0 or 1')
    name = message.get("name")
    if name is not None or role == "function":
        pattern = FUNCTION_NAME if role == "function" else PARTICIPANT_NAME
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise Problem(f'{here}, key "name": must be text of 1 to 64 characters, no spaces')
    calls = _check_calls(message, here)
    if message.get("content") is None:
        if role != "assistant" or not calls:
            raise Problem(f'{here}: key "content" is missing')
    else:
        _check_content(message["content"], here)
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise Problem(f'{here}: key "tool_call_id" is missing')


def _check_content(content: object, here: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise Problem(f'{here}, key "content": must be text, or a list of text parts')
    for position, part in enumerate(content, 1):
        there = f'{here}, key "content", part {position}'
        if not isinstance(part, dict):
            raise Problem(f"{there}: must be an object")
        kind = part.get("type")
        if kind != "text":
            why = UNTRAINABLE.get(kind) if isinstance(kind, str) else None
            raise Problem(f"{there}: {why or 'must be of type text'}")
        _only(part, frozenset({"type", "text"}), there)
        if not isinstance(part.get("text"), str):
            raise Problem(f'{there}, key "text": must be text')


def _check_calls(message: dict[str, Any], here: str) -> bool:
    """Validate calls; return whether the message has any. Raises Problem."""
    calls = message.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list) or not 1 <= len(calls) <= TOOL_CALLS_MAX:
            raise Problem(
                f'{here}, key "tool_calls": must be a list of 1 to {TOOL_CALLS_MAX} calls'
            )
        for position, call in enumerate(calls, 1):
            there = f"{here}, tool call {position}"
            if not isinstance(call, dict):
                raise Problem(f"{there}: must be an object")
            _only(call, frozenset({"id", "type", "function"}), there)
            if not isinstance(call.get("id"), str) or not call["id"]:
                raise Problem(f'{there}, key "id": must be text')
            if call.get("type") != "function":
                raise Problem(f'{there}, key "type": must be "function"')
            _check_call(call.get("function"), there)
    function = message.get("function_call")
    if function is not None:
        _check_call(function, f'{here}, key "function_call"')
    return calls is not None or function is not None


def _check_call(function: object, here: str) -> None:
    if not isinstance(function, dict):
        raise Problem(f'{here}: key "function" must be an object')
    _only(function, frozenset({"name", "arguments"}), here)
    _check_function_name(function.get("name"), here)
    if not isinstance(function.get("arguments"), str):
        raise Problem(f'{here}, key "arguments": must be text that holds JSON')


def _check_options(example: Mapping[str, Any], where: str) -> None:
    """Validate tools, functions and parallel_tool_calls. Raises Problem."""
    for key in ("tools", "functions"):
        tools = example.get(key)
        if tools is None:
            continue
        if not isinstance(tools, list) or len(tools) > TOOLS_MAX:
            raise Problem(f'{where}, key "{key}": must be a list of at most {TOOLS_MAX}')
        for position, tool in enumerate(tools, 1):
            _check_tool(tool, f"{where}, {key[:-1]} {position}", is_wrapped=key == "tools")
    parallel = example.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise Problem(f'{where}, key "parallel_tool_calls": must be true or false')


def _check_tool(tool: object, here: str, *, is_wrapped: bool) -> None:
    if not isinstance(tool, dict):
        raise Problem(f"{here}: must be an object")
    function: object = tool
    if is_wrapped:
        _only(tool, frozenset({"type", "function"}), here)
        if tool.get("type") != "function":
            raise Problem(f'{here}, key "type": must be "function"')
        function = tool.get("function")
    if not isinstance(function, dict):
        raise Problem(f'{here}, key "function": must be an object')
    _only(function, frozenset({"name", "description", "parameters", "strict"}), here)
    _check_function_name(function.get("name"), here)
    for key, kind, what in (
        ("description", str, "text"),
        ("parameters", dict, "an object"),
        ("strict", bool, "true or false"),
    ):
        if function.get(key) is not None and not isinstance(function[key], kind):
            raise Problem(f'{here}, key "{key}": must be {what}')


def _check_function_name(name: object, here: str) -> None:
    if not isinstance(name, str) or not FUNCTION_NAME.fullmatch(name):
        raise Problem(
            f'{here}, key "name": must be 1 to 64 letters, digits, underscores and dashes'
        )


def _only(found: Mapping[str, object], known: frozenset[str], here: str) -> None:
    for position, key in enumerate(found, 1):
        if key not in known:
            allowed = ", ".join(sorted(known))
            raise Problem(
                f"{here}: key {position} of {len(found)} is unrecognized; allowed: {allowed}"
            )


def _called(messages: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset(call["id"] for one in messages for call in one.get("tool_calls") or ())


def _length(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, str):
        length = len(content)
    else:
        length = sum(len(part["text"]) for part in content or ())
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    if message.get("function_call"):
        calls.append(message["function_call"])
    return length + sum(len(call["name"]) + len(call["arguments"]) for call in calls)
