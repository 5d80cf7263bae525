"""Bodies on their way through: the model's name both ways, and the usage that an answer states.

Engines know a model by its internal id, clients by its public one. In an answer the name stands as
`"model":"…"`; these bytes cannot occur inside a JSON string, where quotes are escaped, so they are
replaced without parsing. Streams are rewritten at event borders.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from tunewarden.errors import Error, Kind

EVENT_BYTES_MAX = 8 * 1024 * 1024
RENAMINGS_MAX = 4096


class Usage(msgspec.Struct):
    """Tokens as the chat, completions and embeddings answers state them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def counted(self) -> tuple[int, int]:
        """Input and output tokens, whichever names the API uses."""
        return self.prompt_tokens or self.input_tokens, self.completion_tokens or self.output_tokens


class _Answered(msgspec.Struct):
    usage: Usage | None = None
    choices: list[msgspec.Raw] | None = None


_answered = msgspec.json.Decoder(_Answered)


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request body that has been read: the model it names and the fields as they came."""

    model: str
    is_stream: bool
    wants_usage: bool
    fields: dict[str, Any]

    @classmethod
    def parse(cls, body: bytes) -> "InferenceRequest":
        """Read a body. Raises Error(INVALID) in OpenAI's words."""
        try:
            fields = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Error(
                Kind.INVALID,
                "We could not parse the JSON body of your request. It must be a JSON object with a"
                " content-type of application/json.",
            ) from error
        if not isinstance(fields, dict):
            raise Error(Kind.INVALID, "The body of your request must be a JSON object.")
        model = fields.get("model")
        if not isinstance(model, str) or not model:
            raise Error(Kind.INVALID, "You must provide a model parameter.", param="model")
        options = fields.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        return cls(model, fields.get("stream") is True, wants_usage, fields)

    def for_engine(self, engine_model: str, *, ask_usage: bool) -> bytes:
        """Return the body for an engine, which is asked for a stream's usage so that we can count it."""
        fields = {**self.fields, "model": engine_model}
        options = fields.get("stream_options")
        if ask_usage and self.is_stream and (options is None or isinstance(options, dict)):
            fields["stream_options"] = {**(options or {}), "include_usage": True}
        return msgspec.json.encode(fields)


@lru_cache(maxsize=RENAMINGS_MAX)
def renaming(engine_model: str, public_id: str) -> "Renaming":
    """Return what gives answers the public name of their model; kept, for the next request."""
    return Renaming(engine_model, public_id)


class Renaming:
    """Gives answers the public name of their model."""

    __slots__ = ("_public", "_written")

    def __init__(self, engine_model: str, public_id: str) -> None:
        name = msgspec.json.encode(engine_model)
        # As engines write it: with the space that `json.dumps` sets, or without.
        self._written = (b'"model":' + name, b'"model": ' + name)
        self._public = b'"model":' + msgspec.json.encode(public_id)

    def apply(self, data: bytes) -> bytes:
        """Return `data`, whole JSON or whole events, with the public name."""
        close, spaced = self._written
        return data.replace(close, self._public).replace(spaced, self._public)


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
        if b'"usage"' in data:
            data = self._take_usage(data)
        return self._renaming.apply(data)

    def rest(self) -> bytes:
        """Return the last event of a stream that has ended, should its blank line be missing."""
        self._tail = self._tail.rstrip(b"\r\n")
        return self.feed(b"\n\n") if self._tail else b""

    def _take_usage(self, data: bytes) -> bytes:
        events = data.split(b"\n\n")
        return b"\n\n".join([event for event in events if not self._is_hidden(event)])

    def _is_hidden(self, event: bytes) -> bool:
        """Count an event's usage; true for the one that only we asked for."""
        if not event.startswith(b"data:") or b'"usage"' not in event:
            return False
        try:
            answered = _answered.decode(event[5:])
        except msgspec.DecodeError:
            return False
        if answered.usage is None:
            return False
        self.usage = answered.usage
        return self._hides_usage and answered.choices == []


def usage_of(body: bytes) -> Usage:
    """Return the usage that a whole JSON answer states."""
    try:
        return _answered.decode(body).usage or Usage()
    except msgspec.DecodeError:
        return Usage()
