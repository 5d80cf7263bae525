"""The body of /v1/responses, parsed strictly and translated into a chat's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import msgspec

from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.embedded_engine.metadata import parse_metadata
from tunewarden.embedded_engine.requests import Ask, fields_of, model_of, parse_chat
from tunewarden.embedded_engine.responses.items import messages_of
from tunewarden.embedded_engine.responses.tools import choice_of, tools_of
from tunewarden.errors import Error
from tunewarden.invalid_values import unsupported

LOGPROBS: Final = "message.output_text.logprobs"
INCLUDABLE: Final = (
    LOGPROBS,
    # Of calls and reasoning that there are none of here.
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
# Taken as a chat takes them.
AS_IN_CHAT: Final = (
    "temperature",
    "top_p",
    # Not of OpenAI's Responses: as vLLM takes them.
    "chat_template_kwargs",
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "min_p",
    "min_tokens",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "top_k",
)
# Accepted without an effect. What is said of them in an answer is what was sent.
ECHOED: Final = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
HARMLESS: Final = ("service_tier", "prompt_cache_options", "max_tool_calls")
NOT_STORED: Final = "Responses are not stored: send the conversation so far in 'input'."
NOT_OFFERED: Final = {
    "previous_response_id": NOT_STORED,
    "conversation": NOT_STORED,
    "background": "Responses are not stored: use 'stream'.",
    "background_options": "Responses are not stored: use 'stream'.",
    "prompt": "Prompt templates are not stored: send 'instructions' and 'input'.",
    "context_management": "Shorten 'input'.",
    "moderation": "",
    "access_programs": "",
    "image": "",
}
INSTEAD: Final = {
    "messages": "Use 'input'.",
    "max_tokens": "Use 'max_output_tokens'.",
    "max_completion_tokens": "Use 'max_output_tokens'.",
    "response_format": "Use 'text.format'.",
    "reasoning_effort": "Use 'reasoning.effort'.",
    "logprobs": f"Use 'include' with '{LOGPROBS}'.",
    "n": "A response has one choice. Use v1/chat/completions.",
    "functions": "Use 'tools'.",
}
# A chat's parameter -> what it is called here.
NAMES: Final = re.compile(
    r"\b(messages)\b(?:\[\d+\](?:\.\w+|\[\d+\])*)?"
    r"|\b(max_completion_tokens|max_tokens)\b"
    r"|\b(response_format\.json_schema|response_format)\b"
    r"|(?<=\])(\.function)(?=\.)"
    r"|\b(tool_choice\.function)\b"
)
CALLED: Final = ("input", "max_output_tokens", "text.format", "", "tool_choice")


def parse_response(body: bytes) -> Ask:
    """Parse the body of /v1/responses. Raises Error(INVALID) that names the parameter."""
    chat, shown = translated(body)
    with in_its_words():
        ask = parse_chat(msgspec.json.encode(chat))
    shown |= {"temperature": ask.sampling.temperature, "top_p": ask.sampling.top_p}
    return replace(ask, response=shown)


def translated(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a chat's parameters, and what the answer repeats of the request. Raises Error(INVALID)."""
    fields = fields_of(body)
    chat: dict[str, Any] = {"model": model_of(fields)}
    instructions = fields.text("instructions")
    chat["messages"] = messages_of(fields.required("input"), instructions)
    tokens_max = fields.integer("max_output_tokens", 1)
    chat["max_completion_tokens"] = tokens_max
    top = fields.integer("top_logprobs", 0, 20)
    if LOGPROBS in _included(fields.take("include")):
        chat |= {"logprobs": True, "top_logprobs": top or 0}
    text, chat["response_format"] = _text(fields.take("text"))
    tools = typed(fields.take("tools"), list, "tools") or []
    choice = fields.take("tool_choice")
    chat["tool_choice"], chat["tools"] = choice_of(choice, tools_of(tools))
    parallel = fields.take("parallel_tool_calls")
    chat |= {"parallel_tool_calls": parallel, "stream": fields.flag("stream")}
    _check_stream_options(fields.take("stream_options"))
    chat |= {name: fields.take(name) for name in AS_IN_CHAT}
    shown = {
        "instructions": instructions,
        "max_output_tokens": tokens_max,
        "metadata": parse_metadata(fields),
        "parallel_tool_calls": True if parallel is None else parallel,
        "text": text,
        "tool_choice": "auto" if choice is None else choice,
        "tools": tools,
        "top_logprobs": top or 0,
        **{name: fields.text(name) for name in ECHOED},
    }
    _refuse(fields)
    fields.ignore(*HARMLESS)
    fields.finish(INSTEAD)
    return {name: value for name, value in chat.items() if value not in (None, [])}, shown


@contextmanager
def in_its_words() -> Iterator[None]:
    """Raise a chat's errors with the names that parameters have here."""
    try:
        yield
    except Error as error:
        param = error.param and _renamed(error.param)
        raise replaced(error, _renamed(error.message), param) from error


def replaced(error: Error, message: str, param: str | None) -> Error:
    """Return the same error with another text."""
    seconds = error.retry_after_seconds
    return Error(error.kind, message, param=param, code=error.code, retry_after_seconds=seconds)


def _renamed(text: str) -> str:
    return NAMES.sub(lambda found: CALLED[(found.lastindex or 1) - 1], text)


def _included(value: Any) -> list[str]:
    found = typed(value, list, "include") or []
    for at, one in enumerate(found):
        if one not in INCLUDABLE:
            raise unsupported(one, INCLUDABLE, f"include[{at}]")
    return found


def _text(value: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the configuration of the text as it is shown, and a chat's `response_format`."""
    fields = Fields(typed(value, dict, "text") or {}, "text")
    shown = typed(fields.take("format"), dict, "text.format") or {"type": "text"}
    fields.refuse_but("verbosity", "medium")
    fields.finish()
    if shown.get("type") != "json_schema":
        return {"format": shown}, None if shown == {"type": "text"} else shown
    schema = {name: value for name, value in shown.items() if name != "type" and value is not None}
    return {"format": shown}, {"type": "json_schema", "json_schema": schema}


def _check_stream_options(value: Any) -> None:
    fields = Fields(typed(value, dict, "stream_options") or {}, "stream_options")
    fields.ignore("include_obfuscation")
    fields.finish({"include_usage": "The last event of a stream always has the usage."})


def _refuse(fields: Fields) -> None:
    """Refuse what OpenAI's service has and this engine has not."""
    for name, instead in NOT_OFFERED.items():
        fields.refuse(name, instead=instead)
    fields.flag("store")  # whatever it says: nothing is stored, and the answer says so
    fields.refuse_but("truncation", "disabled", "Shorten 'input'.")
    reasoning = Fields(typed(fields.take("reasoning"), dict, "reasoning") or {}, "reasoning")
    reasoning.refuse_but("effort", "none")
    reasoning.refuse("summary", "generate_summary", "context", "mode")
    reasoning.finish()
