"""A chat's stream, read back: what an answer of the Responses API is made of."""

from collections.abc import Iterator

import msgspec

DATA = b"data: "
BOUNDARY = b"\n\n"


class Function(msgspec.Struct):
    """The called function; `arguments` is a part of them."""

    name: str | None = None
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """A part of a call; its first one has the id and the function's name."""

    index: int = 0
    id: str | None = None
    function: Function = msgspec.field(default_factory=Function)


class Said(msgspec.Struct):
    """What a chunk adds."""

    content: str | None = None
    tool_calls: list[ToolCall] | None = None


class Logprobs(msgspec.Struct):
    """The logprobs of a chunk's text: an array, one object a token."""

    content: msgspec.Raw


class Choice(msgspec.Struct):
    """The one choice of a chunk."""

    delta: Said
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Cached(msgspec.Struct):
    """What of a prompt was computed before."""

    cached_tokens: int = 0


class Usage(msgspec.Struct):
    """The usage in the last chunk."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: Cached = msgspec.field(default_factory=Cached)


class Chunk(msgspec.Struct):
    """One chunk."""

    choices: list[Choice]
    usage: Usage | None = None


_chunk = msgspec.json.Decoder(Chunk)


def chunks_of(events: bytes) -> Iterator[Chunk]:
    """Yield the chunks in complete events of a chat's stream."""
    for event in events.split(BOUNDARY):
        data = event.removeprefix(DATA)
        if data.startswith(b"{"):
            yield _chunk.decode(data)
