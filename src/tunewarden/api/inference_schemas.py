"""Types of the bodies of inference, for the OpenAPI document.

They list the fields that every engine supports; other fields are passed through.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from tunewarden.api.schemas import Seconds


class Message(Struct):
    """A turn of a chat."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class Sampling(Struct, kw_only=True):
    """Fields that chat and completion requests share."""

    model: str
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None


class ChatRequest(Sampling, kw_only=True):
    """A chat on a base or a fine-tuned model."""

    messages: list[Message]


class CompletionRequest(Sampling, kw_only=True):
    """A text to continue."""

    prompt: str | list[Any]


class EmbeddingsRequest(Struct):
    """Texts to embed, on an engine that supports embeddings."""

    model: str
    input: str | list[Any]


class ResponsesRequest(Struct):
    """A request of the Responses API; `input` has the whole conversation, because nothing is stored."""

    model: str
    input: str | list[Any]
    instructions: str | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: float | None = None
    text: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None


class Usage(Struct):
    """Prompt and completion tokens."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | UnsetType = UNSET


class Completion(Struct):
    """The response to a chat or completion request; a stream sends it as a series of events."""

    id: str
    object: str
    created: Seconds
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | UnsetType | None = UNSET


class Embeddings(Struct):
    """One embedding for each input."""

    object: Literal["list"]
    model: str
    data: list[dict[str, Any]]
    usage: Usage | UnsetType = UNSET


class ResponsesUsage(Struct):
    """Input and output tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponsesAnswer(Struct):
    """The answer of the Responses API; a stream sends it as a series of events."""

    id: str
    object: str
    model: str
    output: list[dict[str, Any]]
    status: str | UnsetType = UNSET
    store: bool | UnsetType = UNSET
    usage: ResponsesUsage | UnsetType | None = UNSET
