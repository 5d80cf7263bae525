"""Tokenizes a request's prompts, within the base's context length."""

from typing import Any

from tunewarden.chat_templates import TEMPLATE_ERRORS, render
from tunewarden.embedded_engine.chat_messages import characters
from tunewarden.embedded_engine.fields import bounded
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.requests import Ask, Prompt
from tunewarden.engine_protocol import paths
from tunewarden.errors import Error, Kind
from tunewarden.invalid_values import invalid, shown

# Of one request: its prompts, and what all its choices may say.
REQUEST_TOKENS_MAX = 1024 * 1024


def encode(ask: Ask, base: Base) -> list[list[int]]:
    """Return one list of token ids per prompt. Raises Error(INVALID).

    Code `context_length_exceeded`: a prompt leaves no room for a completion.
    """
    _refuse_what_cannot_fit(ask, base)
    if ask.messages is not None:
        prompts, param = [_encode_messages(ask, ask.messages, base)], "messages"
    else:
        prompts, param = [_encode_prompt(prompt, base) for prompt in ask.prompts or []], "prompt"
    for ids in prompts:
        if len(ids) >= base.context:
            raise _too_long(base, param, str(len(ids)))
    for token, _ in ask.sampling.logit_bias:
        if token >= base.vocabulary:
            message = f"Invalid key in 'logit_bias': {token} is not a token of this model."
            raise invalid(message, "logit_bias", "invalid_value")
    for at, token in enumerate(ask.stop_tokens):
        bounded(token, 0, base.vocabulary - 1, f"stop_token_ids[{at}]", "integer")
    _refuse_too_many(ask, base, prompts)
    return prompts


def tokens_max(ask: Ask, base: Base, prompt_tokens: int) -> int:
    """Return the completion's token limit: the requested one, or what the context has room for."""
    room = base.context - prompt_tokens
    if ask.tokens_max is not None:
        return min(ask.tokens_max, room)
    return min(room, max(1, REQUEST_TOKENS_MAX // ask.choices))


def _refuse_too_many(ask: Ask, base: Base, prompts: list[list[int]]) -> None:
    """Refuse a request that may take more tokens, in all its choices, than one may take."""
    total = sum(len(ids) + ask.choices * tokens_max(ask, base, len(ids)) for ids in prompts)
    if total > max(REQUEST_TOKENS_MAX, base.context):
        message = (
            f"This request may take {total} tokens: {len(prompts)} prompts with {ask.choices} choices of up to"
            f" {ask.tokens_max} tokens. At most {REQUEST_TOKENS_MAX} are taken. Please reduce 'max_tokens', 'n' or"
            " the prompts."
        )
        raise invalid(message, "max_tokens", "too_many_tokens")


def _refuse_what_cannot_fit(ask: Ask, base: Base) -> None:
    """Refuse prompts that are too long by their size alone, because tokenizing them would take long."""
    if ask.messages is not None:
        if len(ask.messages) >= base.context:  # each of them is a token, at least
            raise _too_long(base, "messages", f"at least {len(ask.messages)}")
        _refuse_long_text(sum(map(characters, ask.messages)), base, "messages")
        return
    for prompt in ask.prompts or []:
        if not isinstance(prompt, str):
            if len(prompt) >= base.context:
                raise _too_long(base, "prompt", str(len(prompt)))
        else:
            _refuse_long_text(len(prompt), base, "prompt")


def _refuse_long_text(characters: int, base: Base, param: str) -> None:
    if characters > base.text_bytes_max:  # a character has at least one byte
        raise _too_long(base, param, f"at least {characters // base.longest_token}")


def _too_long(base: Base, param: str, tokens: str) -> Error:
    return invalid(
        f"This model's maximum context length is {base.context} tokens. However, your {param}"
        f" resulted in {tokens} tokens. Please reduce the length of the {param}.",
        param,
        "context_length_exceeded",
    )


def _encode_messages(ask: Ask, messages: list[dict[str, Any]], base: Base) -> list[int]:
    if not base.tokenizer.chat_template:
        raise Error(
            Kind.INVALID,
            f"This model has no chat template. Use {paths.COMPLETIONS}.",
            param="model",
            code="no_chat_template",
        )
    try:
        ids = render(
            base.tokenizer,
            messages,
            ask.tools.offered if ask.tools else None,
            **ask.template_arguments,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
    except TEMPLATE_ERRORS as error:
        with_tools = " with these tools" if ask.tools else ""
        message = f"The model's chat template does not accept these messages{with_tools}."
        raise invalid(message, "messages", "invalid_value") from error
    return list(ids)


def _encode_prompt(prompt: Prompt, base: Base) -> list[int]:
    if isinstance(prompt, str):
        ids = list(base.tokenizer.encode(prompt))
    else:
        ids = prompt
        unknown = next((token for token in ids if token >= base.vocabulary), None)
        if unknown is not None:
            message = f"Invalid 'prompt': {shown(unknown)} is not a token of this model."
            raise invalid(message, "prompt", "invalid_value")
    if ids:
        return ids
    # An empty prompt is a BOS token.
    begin = base.tokenizer.bos_token_id
    return [min(base.end_tokens, default=0) if begin is None else int(begin)]
