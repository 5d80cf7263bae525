"""The types of the parameters of chats, completions and responses: one table for all three.

A parameter has the same type on each endpoint, also where the endpoint does not take it. Not in the table: `prompt` and
`logprobs`, whose types differ, and what the parts of `messages`, `input` and `tools` hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tunewarden.invalid_values import joined, wrong_type


@dataclass(frozen=True, slots=True)
class Type:
    """A type of JSON: `words` for an error, its Python types, and the type of what an array or object holds."""

    words: str
    python: tuple[type, ...]
    each: "Type | None" = None
    named: Mapping[str, "Type"] = field(default_factory=dict)


STRING: Final = Type("a string", (str,))
BOOLEAN: Final = Type("a boolean", (bool,))
INTEGER: Final = Type("an integer", (int,))
NUMBER: Final = Type("a decimal", (int, float))
OBJECT: Final = Type("an object", (dict,))
STRINGS: Final = Type("an array of strings", (list,), STRING)
INTEGERS: Final = Type("an array of integers", (list,), INTEGER)
OBJECTS: Final = Type("an array of objects", (list,), OBJECT)
STRING_OR_STRINGS: Final = Type("one of a string or an array of strings", (str, list), STRING)
STRING_OR_OBJECTS: Final = Type("one of a string or array of objects", (str, list), OBJECT)
STRING_OR_OBJECT: Final = Type("one of a string or an object", (str, dict))
OBJECT_OF_STRINGS: Final = Type("an object of strings", (dict,), STRING)
OBJECT_OF_NUMBERS: Final = Type("an object of decimals", (dict,), NUMBER)
STREAM_OPTIONS: Final = Type(
    "an object",
    (dict,),
    named={
        "continuous_usage_stats": BOOLEAN,
        "include_obfuscation": BOOLEAN,
        "include_usage": BOOLEAN,
    },
)
TYPES: Final[Mapping[str, Type]] = {
    "add_generation_prompt": BOOLEAN,
    "add_special_tokens": BOOLEAN,
    "audio": OBJECT,
    "background": BOOLEAN,
    "best_of": INTEGER,
    "chat_template_kwargs": OBJECT,
    "continue_final_message": BOOLEAN,
    "conversation": STRING_OR_OBJECT,
    "echo": BOOLEAN,
    "frequency_penalty": NUMBER,
    "function_call": STRING_OR_OBJECT,
    "functions": OBJECTS,
    "ignore_eos": BOOLEAN,
    "include": STRINGS,
    "include_stop_str_in_output": BOOLEAN,
    "input": STRING_OR_OBJECTS,
    "instructions": STRING,
    "length_penalty": NUMBER,
    "logit_bias": OBJECT_OF_NUMBERS,
    "max_completion_tokens": INTEGER,
    "max_output_tokens": INTEGER,
    "max_tokens": INTEGER,
    "max_tool_calls": INTEGER,
    "messages": OBJECTS,
    "metadata": OBJECT_OF_STRINGS,
    "min_p": NUMBER,
    "min_tokens": INTEGER,
    "modalities": STRINGS,
    "model": STRING,
    "n": INTEGER,
    "parallel_tool_calls": BOOLEAN,
    "prediction": OBJECT,
    "presence_penalty": NUMBER,
    "previous_response_id": STRING,
    "prompt_cache_key": STRING,
    "prompt_cache_options": OBJECT,
    "prompt_cache_retention": STRING,
    "reasoning": OBJECT,
    "reasoning_effort": STRING,
    "repetition_penalty": NUMBER,
    "response_format": OBJECT,
    "safety_identifier": STRING,
    "seed": INTEGER,
    "service_tier": STRING,
    "skip_special_tokens": BOOLEAN,
    "spaces_between_special_tokens": BOOLEAN,
    "stop": STRING_OR_STRINGS,
    "stop_token_ids": INTEGERS,
    "store": BOOLEAN,
    "stream": BOOLEAN,
    "stream_options": STREAM_OPTIONS,
    "structured_outputs": OBJECT,
    "suffix": STRING,
    "temperature": NUMBER,
    "text": OBJECT,
    "tool_choice": STRING_OR_OBJECT,
    "tools": OBJECTS,
    "top_k": INTEGER,
    "top_logprobs": INTEGER,
    "top_p": NUMBER,
    "truncation": STRING,
    "use_beam_search": BOOLEAN,
    "user": STRING,
    "verbosity": STRING,
    "web_search_options": OBJECT,
}


def check_types(parameters: Mapping[str, Any]) -> None:
    """Raise Error(INVALID) for the first parameter of another type than the table says. Null is absent."""
    _check_named(parameters, TYPES, "")


def _check_named(values: Mapping[str, Any], types: Mapping[str, Type], within: str) -> None:
    for name, value in values.items():
        expected = types.get(name)
        if expected is not None and value is not None:
            _check(value, expected, joined(within, name))


def _check(value: Any, expected: Type, path: str) -> None:
    if type(value) not in expected.python:
        raise wrong_type(path, expected.words, value)
    if isinstance(value, list) and expected.each is not None:
        for at, one in enumerate(value):
            _check(one, expected.each, f"{path}[{at}]")
    elif isinstance(value, dict):
        _check_named(value, expected.named, path)
        for name, one in value.items() if expected.each is not None else ():
            if one is not None and expected.each is not None:
                _check(one, expected.each, joined(path, name))
