"""From what a request asks for to the token ids of its prompts, within the base's context."""

from typing import Any

from jinja2.exceptions import TemplateError

from tunewarden.engine.fields import invalid
from tunewarden.engine.model import Base
from tunewarden.engine.requests import Ask, Prompt
from tunewarden.errors import Error, Kind


def encode(ask: Ask, base: Base) -> list[list[int]]:
    """Return one list of token ids a prompt. Raises Error(INVALID).

    Code `context_length_exceeded` means that a prompt leaves no room for an answer.
    """
    if ask.messages is not None:
        prompts, param = [_encode_messages(ask.messages, base)], "messages"
    else:
        prompts, param = [_encode_prompt(prompt, base) for prompt in ask.prompts or []], "prompt"
    for ids in prompts:
        if len(ids) >= base.context:
            raise invalid(
                f"This model's maximum context length is {base.context} tokens. However, your {param}"
                f" resulted in {len(ids)} tokens. Please reduce the length of the {param}.",
                param,
                "context_length_exceeded",
            )
    for token, _ in ask.sampling.logit_bias:
        if token >= base.vocabulary:
            message = f"Invalid key in 'logit_bias': {token} is not a token of this model."
            raise invalid(message, "logit_bias", "invalid_value")
    return prompts


def tokens_max(ask: Ask, base: Base, prompt_tokens: int) -> int:
    """Return how many tokens the answer may have: what was asked for or what the context has room for."""
    room = base.context - prompt_tokens
    return room if ask.tokens_max is None else min(ask.tokens_max, room)


def _encode_messages(messages: list[dict[str, Any]], base: Base) -> list[int]:
    if not base.tokenizer.chat_template:
        raise Error(
            Kind.INVALID,
            "This model has no chat template. Use /v1/completions.",
            param="model",
            code="no_chat_template",
        )
    try:
        ids = base.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except (TemplateError, TypeError, ValueError) as error:
        message = "The model's chat template does not accept these messages."
        raise invalid(message, "messages", "invalid_value") from error
    return list(ids)


def _encode_prompt(prompt: Prompt, base: Base) -> list[int]:
    if isinstance(prompt, str):
        ids = list(base.tokenizer.encode(prompt))
    else:
        ids = prompt
        if any(token >= base.vocabulary for token in ids):
            message = "Invalid 'prompt': it has a token that this model does not have."
            raise invalid(message, "prompt", "invalid_value")
    if ids:
        return ids
    # An empty prompt is the beginning of a text.
    begin = base.tokenizer.bos_token_id
    return [min(base.end_tokens, default=0) if begin is None else int(begin)]
