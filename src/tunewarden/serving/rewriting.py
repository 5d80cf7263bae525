"""Bodies on their way through: the model's name both ways, and the usage that an answer states.

Engines know a model by its internal id, clients by its public one. In an answer the name stands as
`"model":"…"`; these bytes cannot occur inside a JSON string, where quotes are escaped, so they are
replaced without parsing. Streams are rewritten at event borders.
"""

import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from tunewarden.errors import Error, Kind

# In a string its quotes would be escaped; most chunks say null.
USAGE = re.compile(rb'"usage"\s*:\s*\{')
EVENT_BYTES_MAX = 8 * 1024 * 1024
RENAMINGS_MAX = 1024


# What an engine may claim for one request, so that no claim breaks the counting of the others.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
# Of JSON that is not, or is nested too deep: usage is counted where it can be.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class Usage(msgspec.Struct):
    """Tokens as the chat, completions and embeddings answers state them."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0

    @property
    def counted(self) -> tuple[int, int]:
        """Input and output tokens, whichever names the API uses."""
        return self.prompt_tokens or self.input_tokens, self.completion_tokens or self.output_tokens


class _Response(msgspec.Struct):
    usage: Usage | None = None


class _Answered(msgspec.Struct):
    usage: Usage | None = None
    response: _Response | None = None  # in the last event of a stream of the responses API
    choices: list[msgspec.Raw] | None = None


_answered = msgspec.json.Decoder(_Answered)


class _Asked(msgspec.Struct):
    """The fields of a request that the gateway goes by; whatever they are, the engine judges the rest."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None


_asked = msgspec.json.Decoder(_Asked)


class InferenceRequest:
    """A request body that has been read: the model it names, and the body as it came."""

    __slots__ = ("_body", "_options", "_takes_options", "is_stream", "model", "wants_usage")

    def __init__(self, model: str, body: bytes, *, is_stream: bool, options: object) -> None:
        self.model = model
        self.is_stream = is_stream
        self._body = body
        self._options: dict[str, Any] = options if isinstance(options, dict) else {}
        self.wants_usage = self._options.get("include_usage") is True
        # Options of another type are wrong, and the engine says how.
        self._takes_options = options is None or isinstance(options, dict)

    @classmethod
    def parse(cls, body: bytes) -> "InferenceRequest":
        """Read a body. Raises Error(INVALID) in OpenAI's words."""
        try:
            if not body.isascii():
                body.decode()  # the decoder does not look into what it passes over
            asked = _asked.decode(body)
        except msgspec.ValidationError as error:
            raise Error(Kind.INVALID, "The body of your request must be a JSON object.") from error
        except UNREADABLE as error:
            raise unreadable() from error
        model = asked.model
        if not isinstance(model, str) or not model:
            raise Error(Kind.INVALID, "You must provide a model parameter.", param="model")
        return cls(model, body, is_stream=asked.stream is True, options=asked.stream_options)

    def for_engine(self, engine_model: str, *, ask_usage: bool) -> bytes:
        """Return the body for an engine, which is asked for a stream's usage so that we can count it.

        Raises Error(INVALID) for what only a closer look shows.
        """
        asks = ask_usage and self.is_stream and not self.wants_usage and self._takes_options
        body = self._renamed(engine_model)
        if body is not None and not asks:
            return body
        if body is not None and b'"stream_options"' not in body:
            return body[: body.rindex(b"}")] + b',"stream_options":{"include_usage":true}}'
        return self._rewritten(engine_model, asks=asks)

    def _renamed(self, engine_model: str) -> bytes | None:
        """Return the body with the engine's name for the model in its place; None if that is not plain.

        With no escaped letter in the body and `"model"` in it once, that is the field: inside a string
        its quotes would be escaped, and only before the second one can a string end in between.
        """
        body = self._body
        if body.count(b'"model"') != 1 or b"\\u" in body:
            return None
        return renaming(self.model, engine_model).apply_once(body)

    def _rewritten(self, engine_model: str, *, asks: bool) -> bytes:
        try:
            fields = msgspec.json.decode(self._body)
        except UNREADABLE as error:
            raise unreadable() from error
        fields["model"] = engine_model
        if asks:
            fields["stream_options"] = {**self._options, "include_usage": True}
        return msgspec.json.encode(fields)


def unreadable() -> Error:
    """Return the error for a body that is no JSON."""
    return Error(
        Kind.INVALID,
        "We could not parse the JSON body of your request. It must be a JSON object with a"
        " content-type of application/json.",
    )


@lru_cache(maxsize=RENAMINGS_MAX)
def renaming(name: str, other: str) -> "Renaming":
    """Return what puts another name in a name's place; kept, for the next request."""
    return Renaming(name, other)


class Renaming:
    """Puts another name of a model in its name's place."""

    __slots__ = ("_other", "_written")

    def __init__(self, name: str, other: str) -> None:
        value = msgspec.json.encode(name)
        # With the space that `json.dumps` sets, or without.
        self._written = (b'"model":' + value, b'"model": ' + value)
        self._other = b'"model":' + msgspec.json.encode(other)

    def apply(self, data: bytes) -> bytes:
        """Return `data`, whole JSON or whole events, with the other name wherever the name stood."""
        close, spaced = self._written
        return data.replace(close, self._other).replace(spaced, self._other)

    def apply_once(self, data: bytes) -> bytes | None:
        """Return `data`, which has one model, with the other name; None if the name is written otherwise."""
        for written in self._written:
            if written in data:
                return data.replace(written, self._other)
        return None


class StreamRewriter:
    """Takes an SSE stream in pieces and gives it back in whole events."""

    __slots__ = ("_hides_usage", "_renaming", "_tail", "usage")

    def __init__(self, renaming: Renaming, *, hides_usage: bool) -> None:
        self.usage = Usage()
        self._renaming = renaming
        self._hides_usage = hides_usage
        self._tail = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the events that are complete now; b"" while there are none. Raises ConnectionError."""
        data = self._tail + piece if self._tail else piece
        if b"\r" in data:  # Some servers end lines with CRLF; in JSON a carriage return is escaped.
            data = data.replace(b"\r\n", b"\n")
        border = data.rfind(b"\n\n") + 2
        if border < 2:
            self._tail = data
            if len(data) > EVENT_BYTES_MAX:
                raise ConnectionAbortedError("the engine sent an event without end")
            return b""
        data, self._tail = data[:border], data[border:]
        return self._renaming.apply(self._take_usage(data))

    def rest(self) -> bytes:
        """Return the last event of a stream that has ended, should its blank line be missing."""
        self._tail = self._tail.rstrip(b"\r\n")
        return self.feed(b"\n\n") if self._tail else b""

    def _take_usage(self, data: bytes) -> bytes:
        """Count what usage whole events state; return them without the event that only we asked for."""
        at = data.find(b'"usage"')  # much faster than the pattern where there is none
        found = USAGE.search(data, at) if at >= 0 else None
        while found is not None:
            border = data.rfind(b"\n\n", 0, found.start())
            begin = border + 2 if border >= 0 else 0
            end = data.find(b"\n\n", found.end()) + 2
            if self._is_hidden(data[begin:end]):
                data = data[:begin] + data[end:]
                end = begin
            found = USAGE.search(data, end)
        return data

    def _is_hidden(self, event: bytes) -> bool:
        """Count an event's usage; true for the one that only we asked for."""
        lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
        try:
            answered = _answered.decode(b"\n".join(lines))
        except UNREADABLE:
            return False
        usage = answered.usage
        if usage is None and answered.response is not None:
            usage = answered.response.usage
        if usage is None:
            return False
        self.usage = usage
        return self._hides_usage and answered.choices == []


def usage_of(body: bytes) -> Usage:
    """Return the usage that a whole JSON answer states."""
    try:
        return _answered.decode(body).usage or Usage()
    except UNREADABLE:
        return Usage()
