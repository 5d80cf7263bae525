"""OpenAI's two request bodies, parsed strictly into one internal form. Knows no tokenizer."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tunewarden.embedded_engine import vllm_parameters as vllm
from tunewarden.embedded_engine.chat_messages import parse_messages
from tunewarden.embedded_engine.constraints import Constraint
from tunewarden.embedded_engine.fields import Fields, typed
from tunewarden.embedded_engine.formats import parse_constraint
from tunewarden.embedded_engine.metadata import parse_metadata
from tunewarden.embedded_engine.parameter_types import check_types
from tunewarden.embedded_engine.sampling import Sampling
from tunewarden.embedded_engine.tools import Tools, parse_tools
from tunewarden.errors import Error, Kind
from tunewarden.invalid_values import invalid, shown, wrong_type

CHOICES_MAX = 128
PROMPTS_MAX = 2048
STOPS_MAX = 4
STOP_CHARACTERS_MAX = 500
BIASES_MAX = 300
SEED_MAX = 2**63 - 1
TOKEN_ID = re.compile("0|[1-9][0-9]{0,8}")
COMPLETION_TOKENS = 16  # OpenAI's default for completions; chat has none
HARMLESS = (
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
)
UNSUPPORTED_IN_CHAT = (
    "audio",
    "prediction",
    "web_search_options",
)
NOT_IN_CHAT = {
    "prompt": "Use v1/completions, or 'messages'.",
    "echo": "Use v1/completions.",
    "input": "Use 'messages'.",
}
NOT_IN_COMPLETIONS = {
    "messages": "Use v1/chat/completions, or 'prompt'.",
    "max_completion_tokens": "Use 'max_tokens'.",
    "top_logprobs": "Use 'logprobs', a number.",
    "chat_template_kwargs": "Use v1/chat/completions.",
    "tools": "Use v1/chat/completions.",
}

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Ask:
    """A parsed request. Exactly one of `messages` (chat) and `prompts` is set.

    `tokens_max` None means: as many as the context has room for.
    """

    model: str
    messages: list[dict[str, Any]] | None
    prompts: list[Prompt] | None
    choices: int
    sampling: Sampling
    tokens_max: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    echo: bool = False
    # What every choice must look like.
    constraint: Constraint | None = None
    # As vLLM spells them (vllm_parameters.py).
    usage_in_chunks: bool = False
    ignore_eos: bool = False
    stop_tokens: tuple[int, ...] = ()
    template_arguments: dict[str, Any] = field(default_factory=dict)
    # None: no call is wanted.
    tools: Tools | None = None
    # Of the Responses API: what an answer repeats of its request.
    response: dict[str, Any] | None = None

    @property
    def reports_prompt(self) -> bool:
        """Return whether the prompt's logprobs are wanted."""
        return self.echo and self.sampling.top_logprobs is not None

    @property
    def constrains(self) -> bool:
        """Return whether a constraint may have to be compiled, which takes long."""
        return self.constraint is not None or (self.tools is not None and self.tools.constrains)

    @property
    def is_chat(self) -> bool:
        """Return whether it is a chat request."""
        return self.messages is not None


def parse_chat(body: bytes) -> Ask:
    """Parse the body of /v1/chat/completions. Raises Error(INVALID) that names the parameter."""
    fields = fields_of(body)
    model = model_of(fields)
    messages = parse_messages(fields.required("messages"))
    wants_logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, 20)
    if top is not None and not wants_logprobs:
        message = f"'top_logprobs' is only allowed when 'logprobs' is enabled, but got {top}."
        raise invalid(message, "top_logprobs", "invalid_value")
    older, newer = fields.integer("max_tokens", 1), fields.integer("max_completion_tokens", 1)
    fields.refuse(*UNSUPPORTED_IN_CHAT)
    fields.refuse_but("modalities", ["text"])
    fields.refuse_but("reasoning_effort", "none")
    fields.refuse_but("verbosity", "medium")
    tools = parse_tools(fields)
    arguments = vllm.template_arguments(fields)
    ask = _shared(
        fields,
        model=model,
        messages=messages,
        tokens_max=newer if newer is not None else older,
        top_logprobs=(top or 0) if wants_logprobs else None,
    )
    fields.finish({**vllm.INSTEAD, **NOT_IN_CHAT})
    return replace(ask, template_arguments=arguments, tools=tools)


def parse_completion(body: bytes) -> Ask:
    """Parse the body of /v1/completions. Raises Error(INVALID) that names the parameter."""
    fields = fields_of(body)
    model = model_of(fields)
    prompts = _prompts(fields.required("prompt"))
    tokens_max = fields.integer("max_tokens", 0)
    top = fields.integer("logprobs", 0, 5)
    echo = fields.flag("echo")
    fields.refuse("suffix")
    ask = _shared(
        fields,
        model=model,
        prompts=prompts,
        tokens_max=COMPLETION_TOKENS if tokens_max is None else tokens_max,
        top_logprobs=top,
        echo=echo,
    )
    fields.finish({**vllm.INSTEAD, **NOT_IN_COMPLETIONS})
    return ask


def _shared(
    fields: Fields,
    *,
    model: str,
    tokens_max: int | None,
    top_logprobs: int | None,
    messages: list[dict[str, Any]] | None = None,
    prompts: list[Prompt] | None = None,
    echo: bool = False,
) -> Ask:
    """Parse the fields common to both bodies."""
    sampling = Sampling(
        temperature=fields.decimal("temperature", 0, 2, 1.0),
        top_p=fields.decimal("top_p", 0, 1, 1.0),
        seed=fields.integer("seed", -SEED_MAX, SEED_MAX),
        presence_penalty=fields.decimal("presence_penalty", -2, 2, 0.0),
        frequency_penalty=fields.decimal("frequency_penalty", -2, 2, 0.0),
        logit_bias=_logit_bias(fields.take("logit_bias")),
        top_logprobs=top_logprobs,
        top_k=vllm.top_k(fields),
        min_p=fields.decimal("min_p", 0, 1, 0.0),
        repetition_penalty=fields.decimal("repetition_penalty", *vllm.REPETITION_PENALTIES, 1.0),
        min_tokens=vllm.min_tokens(fields, tokens_max),
    )
    stream = fields.flag("stream")
    include_usage, usage_in_chunks = _stream_options(fields.take("stream_options"), stream=stream)
    fields.refuse("store", instead="Answers are not stored; use false.")
    fields.refuse_but("best_of", 1, "Use 'n'.")
    fields.ignore(*HARMLESS)
    parse_metadata(fields)
    vllm.take_neutral(fields)
    return Ask(
        model=model,
        messages=messages,
        prompts=prompts,
        choices=fields.integer("n", 1, CHOICES_MAX) or 1,
        sampling=sampling,
        tokens_max=tokens_max,
        stops=_stops(fields.take("stop")),
        stream=stream,
        include_usage=include_usage,
        echo=echo,
        constraint=parse_constraint(fields),
        usage_in_chunks=usage_in_chunks,
        ignore_eos=fields.flag("ignore_eos"),
        stop_tokens=vllm.stop_tokens(fields),
    )


def fields_of(body: bytes) -> Fields:
    """Return the parameters in a body, which have the types of the table. Raises Error(INVALID)."""
    try:
        entries = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "We could not parse the JSON body of your request."
        raise Error(Kind.INVALID, message) from error
    if not isinstance(entries, dict):
        raise Error(Kind.INVALID, "The body of the request must be a JSON object.")
    check_types(entries)
    return Fields(entries)


def model_of(fields: Fields) -> str:
    """Return the model that a body names. Raises Error(INVALID)."""
    model = typed(fields.take("model"), str, "model")
    if not model:
        raise Error(Kind.INVALID, "you must provide a model parameter", param="model")
    return model


def _prompts(value: Any) -> list[Prompt]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type("prompt", "one of a string, an array of strings or of tokens", value)
    if not value:
        text = "Invalid 'prompt': empty array. Expected an array with minimum length 1."
        raise invalid(text, "prompt", "empty_array")
    if _is_tokens(value):
        return [value]
    if len(value) > PROMPTS_MAX:
        text = (
            f"Invalid 'prompt': array too long. Expected at most {PROMPTS_MAX} prompts,"
            f" but got {len(value)} instead."
        )
        raise invalid(text, "prompt", "array_above_max_length")
    for prompt in value:
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and _is_tokens(prompt)):
            raise wrong_type("prompt", "only strings or only arrays of tokens in it", prompt)
    return value


def _is_tokens(value: list[Any]) -> bool:
    return all(type(one) is int and one >= 0 for one in value)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else typed(value, list, "stop") or []
    if len(stops) > STOPS_MAX:
        text = f"Invalid 'stop': array too long. Expected at most {STOPS_MAX} strings, but got {len(stops)} instead."
        raise invalid(text, "stop", "array_above_max_length")
    for at, stop in enumerate(stops):
        if not stop:
            raise invalid("Invalid 'stop': it must not be empty.", "stop", "empty_string")
        if len(stop) > STOP_CHARACTERS_MAX:
            text = (
                f"Invalid 'stop[{at}]': string too long. Expected at most {STOP_CHARACTERS_MAX} characters, but got"
                f" {len(stop)} instead."
            )
            raise invalid(text, f"stop[{at}]", "string_above_max_length")
    return tuple(stops)


def _stream_options(value: Any, *, stream: bool) -> tuple[bool, bool]:
    """Return whether the last chunk carries the usage, and whether every chunk does."""
    if value is None:
        return False, False
    if not stream:
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise invalid(text, "stream_options", "invalid_value")
    fields = Fields(typed(value, dict, "stream_options") or {}, "stream_options")
    wanted = fields.flag("include_usage"), fields.flag("continuous_usage_stats")
    fields.ignore("include_obfuscation")
    fields.finish()
    return wanted


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    """Return (token id, bias) pairs; ids must be canonical, so that no token occurs twice."""
    entries = typed(value, dict, "logit_bias") or {}
    if len(entries) > BIASES_MAX:
        text = f"Invalid 'logit_bias': too many tokens. Expected at most {BIASES_MAX} tokens, but got {len(entries)} instead."
        raise invalid(text, "logit_bias", "object_above_max_properties")
    biases = []
    for name, bias in entries.items():
        fields = Fields({name: bias}, "logit_bias")
        if not TOKEN_ID.fullmatch(name):
            text = f"Invalid key in 'logit_bias': {shown(name)} is not a token, which is a number such as \"42\"."
            raise invalid(text, "logit_bias", "invalid_value")
        biases.append((int(name), fields.decimal(name, -100, 100, 0.0)))
    return tuple(biases)
