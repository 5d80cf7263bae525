"""Parameters that OpenAI does not have and self-hosted engines do, as vLLM spells them."""

from typing import Any

from tunewarden.embedded_engine.fields import Fields, bounded, typed
from tunewarden.invalid_values import invalid, shown
from tunewarden.invalid_values import wrong_type as wrong

STOP_TOKENS_MAX = 64
TEMPLATE_ARGUMENTS_CHARACTERS_MAX = 4096
# More than any vocabulary has; what is beyond does not fit into a tensor, and would fail for all rows of the batch.
TOP_K_MAX = 2**31 - 1
REPETITION_PENALTIES = (0.01, 100.0)
# Arguments of the template that the request's other fields give, or that say what is done with its text.
RESERVED_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
# Taken with the value that asks for what is done anyway.
NEUTRAL: dict[str, Any] = {
    "add_generation_prompt": True,
    "add_special_tokens": True,
    "continue_final_message": False,
    "include_stop_str_in_output": False,
    "length_penalty": 1,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "use_beam_search": False,
}
INSTEAD = {
    "format": "Use 'response_format'.",
    "grammar": "Use 'structured_outputs.grammar'.",
    "guided_choice": "Use 'structured_outputs.choice'.",
    "guided_grammar": "Use 'structured_outputs.grammar'.",
    "guided_json": "Use 'structured_outputs.json'.",
    "guided_regex": "Use 'structured_outputs.regex'.",
    "json_schema": "Use 'response_format'.",
    "max_new_tokens": "Use 'max_tokens'.",
    "max_output_tokens": "Use 'max_tokens'.",
    "num_predict": "Use 'max_tokens'.",
    "prompt_logprobs": "Use 'echo' with 'logprobs' in v1/completions.",
    "repeat_penalty": "Use 'repetition_penalty'.",
    "stop_sequences": "Use 'stop'.",
    "typical_p": "Use 'top_p' or 'min_p'.",
}


def top_k(fields: Fields) -> int:
    """Return how many of the likeliest tokens are drawn from; 0: all. vLLM takes -1 for all, too."""
    return min(max(fields.integer("top_k", -1) or 0, 0), TOP_K_MAX)


def min_tokens(fields: Fields, tokens_max: int | None) -> int:
    """Return how many tokens an answer has at least."""
    least = fields.integer("min_tokens", 0)
    bounded(least, 0, tokens_max, fields.path("min_tokens"), "integer")
    return least or 0


def stop_tokens(fields: Fields) -> tuple[int, ...]:
    """Return the tokens that end a text, as the end token does."""
    name = "stop_token_ids"
    tokens = typed(fields.take(name), list, name) or []
    if len(tokens) > STOP_TOKENS_MAX:
        text = f"Invalid '{name}': array too long. Expected at most {STOP_TOKENS_MAX} tokens, but got {len(tokens)}."
        raise invalid(text, name, "array_above_max_length")
    for at, token in enumerate(tokens):
        if type(token) is not int:
            raise wrong(f"{name}[{at}]", "an integer", token)
        bounded(token, 0, None, f"{name}[{at}]", "integer")
    return tuple(tokens)


def template_arguments(fields: Fields) -> dict[str, Any]:
    """Return what the chat template gets beside the messages, such as `enable_thinking`."""
    name = "chat_template_kwargs"
    arguments = typed(fields.take(name), dict, name) or {}
    for argument in arguments:
        if argument in RESERVED_ARGUMENTS:
            path = f"{name}.{argument}"
            text = f"Invalid '{path}': this argument cannot be given here, but got {shown(arguments[argument])}."
            raise invalid(text, path, "invalid_value")
    size = len(str(arguments))
    if size > TEMPLATE_ARGUMENTS_CHARACTERS_MAX:
        text = f"Invalid '{name}': too long. Expected at most {TEMPLATE_ARGUMENTS_CHARACTERS_MAX} characters, but got {size}."
        raise invalid(text, name, "object_too_long")
    return arguments


def take_neutral(fields: Fields) -> None:
    """Take parameters that change nothing with their value, and refuse other values of theirs."""
    for name, value in NEUTRAL.items():
        fields.refuse_but(name, value)
