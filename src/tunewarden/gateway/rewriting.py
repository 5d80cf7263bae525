"""Rewrites the model's name in request and response bodies, and reads the token usage of responses.

Engines know a model by its internal id, clients by its public one. In a response the name is written as
`"model":"…"`; these bytes cannot occur inside a JSON string, where quotes are escaped, so they can be
replaced without parsing. Streams are rewritten at event boundaries.
"""

import json
import re
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from tunewarden.artifacts.strict_json import is_text
from tunewarden.errors import Error, Kind
from tunewarden.invalid_values import wrong_type

# In a string its quotes would be escaped; most chunks say null.
USAGE = re.compile(rb'"usage"\s*:\s*\{')
# A model's name as JSON, in a body that could not be parsed as a whole.
NAME = re.compile(rb'"model"\s*:\s*("(?:[^"\\\0-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})){0,1024}")')
# Outside strings, these bytes of JSON bound the number of values.
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
CONTAINERS = (b"[", b"{")
STRUCTURE = (b",", b":", *CONTAINERS)
# The engine allocates an object for each value, and its garbage collector tracks each container.
VALUES_MAX = 200_000
CONTAINERS_MAX = 50_000
EVENT_BYTES_MAX = 8 * 1024 * 1024
RENAMINGS_MAX = 1024
# The name of a field, and a body's end with the field in it.
USAGE_WANTED = b'"stream_options"', b',"stream_options":{"include_usage":true}}'
NO_STORE = b'"store"', b',"store":false}'


# The most tokens an engine may report for one request, so that no report overflows the counters.
OUTPUT_MAX = 2**31
Tokens = Annotated[int, msgspec.Meta(ge=0, le=OUTPUT_MAX)]
# Raised for invalid or too deeply nested JSON: usage is counted on a best-effort basis.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


# (input, output, of the input: cached).
Counted = tuple[int, int, int]


class Details(msgspec.Struct):
    """What engines say of the input."""

    cached_tokens: Tokens | None = None


class Usage(msgspec.Struct):
    """Token usage in chat, completions, embeddings and the Responses API."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    prompt_tokens_details: Details | None = None
    input_tokens_details: Details | None = None

    @property
    def counted(self) -> Counted:
        """The tokens, under either API's field names."""
        given = self.prompt_tokens or self.input_tokens
        said = self.completion_tokens or self.output_tokens
        details = self.prompt_tokens_details or self.input_tokens_details
        if details is None:
            return given, said, 0
        return given, said, min(details.cached_tokens or 0, given)


# Of a stream whose usage was not told, or not yet.
UNSAID: Final = Usage()


class Events(NamedTuple):
    """The events of an API's streams. Those with text have the field `text`, and so have the first `opening` events."""

    text: bytes
    opening: int = 0
    is_responses: bool = False


EVENTS_OF_CHAT: Final = Events(b'"delta"', opening=1)  # the first one is the role
EVENTS_OF_COMPLETIONS: Final = Events(b'"text"')
EVENTS_OF_RESPONSES: Final = Events(b'"delta"', is_responses=True)


class _Response(msgspec.Struct):
    usage: Usage | None = None


class _Answered(msgspec.Struct):
    usage: Usage | None = None
    response: _Response | None = None  # in the last event of a stream of the responses API
    choices: list[msgspec.Raw] | None = None


_answered = msgspec.json.Decoder(_Answered)


class _Asked(msgspec.Struct):
    """The fields that the gateway reads; left untyped because the engine validates them."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    store: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None


_asked = msgspec.json.Decoder(_Asked)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class InferenceRequest:
    """A parsed request body: the model it names, and the original bytes."""

    __slots__ = (
        "_asked", "_body", "_options", "_rest", "_takes_options", "is_stream", "model", "options", "store", "wants_usage",
    )  # fmt: skip

    def __init__(self, model: str, body: bytes, asked: _Asked) -> None:
        options = asked.stream_options
        self.model = model
        self.store = asked.store
        self.is_stream = asked.stream is True
        self.options = options
        self._asked = asked
        self._body = body
        # The other fields, as a JSON object, if the body was split.
        self._rest: bytes | None = None
        self._options: dict[str, Any] = options if isinstance(options, dict) else {}
        self.wants_usage = self._options.get("include_usage") is True
        # Options of another type are invalid; the engine reports that.
        self._takes_options = options is None or isinstance(options, dict)

    @classmethod
    def parse(cls, body: bytes) -> "InferenceRequest":
        """Parse a body. Raises Error(INVALID) with OpenAI's messages."""
        try:
            if not body.isascii():
                body.decode()  # msgspec does not validate UTF-8 in skipped fields
            asked = _asked.decode(body)
        except msgspec.ValidationError as error:
            raise Error(Kind.INVALID, "The body of your request must be a JSON object.") from error
        except UNREADABLE as error:
            raise (_unfit_model(body) or unreadable()) from error
        model = asked.model
        if not isinstance(model, str) or not model or "\0" in model:
            raise _no_model()
        return cls(model, body, asked)

    @property
    def size(self) -> int:
        """The size of the body in bytes."""
        return len(self._body if self._rest is None else self._rest)

    @property
    def output_max(self) -> int | None:
        """How many tokens the response may have at most; None if the request does not say that."""
        asked = self._asked
        most = asked.max_completion_tokens or asked.max_tokens or asked.max_output_tokens
        if most is None or type(most) is not int or most < 0:
            return None
        choices = asked.n if type(asked.n) is int and asked.n > 0 else 1
        return min(most * choices, OUTPUT_MAX)

    @classmethod
    def taken_apart(cls, body: bytes) -> "tuple[InferenceRequest, bytes]":
        """Parse and split a long body; return it and its other fields, for `of_parts`. Raises Error(INVALID)."""
        request = cls.parse(body)
        bare = STRING.sub(b"", body)
        if sum(map(bare.count, STRUCTURE)) > VALUES_MAX:
            message = f"The body of your request has too many values (limit {VALUES_MAX})."
            raise Error(Kind.INVALID, message)
        if sum(map(bare.count, CONTAINERS)) > CONTAINERS_MAX:
            message = f"The body of your request has too many arrays and objects (limit {CONTAINERS_MAX})."
            raise Error(Kind.INVALID, message)
        try:
            fields = _fields.decode(body)
        except UNREADABLE as error:
            raise unreadable() from error
        fields.pop("model")
        fields.pop("stream_options", None)
        fields.pop("store", None)
        return request, msgspec.json.encode(fields)

    @classmethod
    def of_parts(
        cls,
        model: str,
        rest: bytes,
        *,
        is_stream: bool,
        options: object,
        store: object,
        output_max: int | None,
    ) -> "InferenceRequest":
        """Return a request from the parts that another process split."""
        asked = _Asked(stream=is_stream, stream_options=options, store=store, max_tokens=output_max)
        request = cls(model, b"", asked)
        request._rest = rest
        return request

    def for_engine(
        self, engine_model: str, *, ask_usage: bool, forbids_store: bool = False
    ) -> bytes:
        """Return the body for an engine; `ask_usage` requests a stream's usage, so that it can be counted.

        An engine that must not store the answer is told so. Raises Error(INVALID) for what only full parsing shows.
        """
        asks = ask_usage and self.is_stream and not self.wants_usage and self._takes_options
        if forbids_store and not isinstance(self.store, bool | None):
            # Else an engine that is sent `false` instead would take what others refuse.
            raise wrong_type("store", "a boolean", self.store)
        forbids_store = forbids_store and self.store is not False
        if self._rest is not None:
            return self._put_together(
                engine_model, self._rest, asks=asks, forbids_store=forbids_store
            )
        body = self._renamed(engine_model)
        if body is not None and not asks and not forbids_store:
            return body
        # No route asks for both.
        name, written = NO_STORE if forbids_store else USAGE_WANTED
        if body is not None and name not in body:
            return body[: body.rindex(b"}")] + written
        return self._rewritten(engine_model, asks=asks, forbids_store=forbids_store)

    def _put_together(
        self, engine_model: str, rest: bytes, *, asks: bool, forbids_store: bool
    ) -> bytes:
        options = {**self._options, "include_usage": True} if asks else self.options
        store = False if forbids_store else self.store
        parts = [b'{"model":', msgspec.json.encode(engine_model)]
        if options is not None:
            parts += [b',"stream_options":', msgspec.json.encode(options)]
        if store is not None:
            parts += [b',"store":', msgspec.json.encode(store)]
        parts += [b"}"] if rest == b"{}" else [b",", rest[1:]]
        return b"".join(parts)

    def _renamed(self, engine_model: str) -> bytes | None:
        """Return the body with the engine's name for the model; None if it cannot be replaced without parsing.

        If the body has no escaped characters and `"model"` occurs once, that is the field: inside a string
        its quotes would be escaped, and only before the second one can a string end in between.
        """
        body = self._body
        if body.count(b'"model"') != 1 or b"\\u" in body:
            return None
        return renaming(self.model, engine_model).apply_once(body)

    def _rewritten(self, engine_model: str, *, asks: bool, forbids_store: bool) -> bytes:
        try:
            # Values stay raw bytes: decoding a long body into objects takes seconds.
            fields: dict[str, Any] = _fields.decode(self._body)
        except UNREADABLE as error:
            raise unreadable() from error
        fields["model"] = engine_model
        if asks:
            fields["stream_options"] = {**self._options, "include_usage": True}
        if forbids_store:
            fields["store"] = False
        return msgspec.json.encode(fields)


def _unfit_model(body: bytes) -> Error | None:
    """Return the error for a model name with a lone surrogate; None if the body is invalid for another reason."""
    at = body.find(b'"model"')
    found = NAME.match(body, at) if at >= 0 else None
    if found is None or is_text(json.loads(found[1].decode("utf-8", "replace"))):
        return None
    return _no_model()


def _no_model() -> Error:
    return Error(Kind.INVALID, "You must provide a model parameter.", param="model")


def unreadable() -> Error:
    """Return the error for a body that is not JSON."""
    return Error(
        Kind.INVALID,
        "We could not parse the JSON body of your request. It must be a JSON object with a"
        " content-type of application/json.",
    )


@lru_cache(maxsize=RENAMINGS_MAX)
def renaming(name: str, other: str) -> "Renaming":
    """Return a `Renaming`, cached for later requests."""
    return Renaming(name, other)


class Renaming:
    """Replaces a model's name by another one."""

    __slots__ = ("_other", "_written")

    def __init__(self, name: str, other: str) -> None:
        value = msgspec.json.encode(name)
        # With the space that `json.dumps` writes, or without.
        self._written = (b'"model":' + value, b'"model": ' + value)
        self._other = b'"model":' + msgspec.json.encode(other)

    def apply(self, data: bytes) -> bytes:
        """Return `data` (complete JSON or complete events) with every occurrence of the name replaced."""
        close, spaced = self._written
        return data.replace(close, self._other).replace(spaced, self._other)

    def apply_once(self, data: bytes) -> bytes | None:
        """Return `data`, which names the model once, with the name replaced; None if it is written differently."""
        for written in self._written:
            if written in data:
                return data.replace(written, self._other)
        return None


class StreamRewriter:
    """Rewrites an SSE stream: takes reads of any size, returns complete events."""

    __slots__ = ("_hides_usage", "_renaming", "_tail", "_text", "texts", "usage")

    def __init__(self, renaming: Renaming, *, hides_usage: bool, text: bytes = b"") -> None:
        self.usage = UNSAID
        self.texts = 0  # events that carry text: each at least a token
        self._text = text
        self._renaming = renaming
        self._hides_usage = hides_usage
        self._tail = b""

    def feed(self, piece: bytes) -> bytes:
        """Return the events completed by `piece`; b"" if there are none. Raises ConnectionError."""
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
        self.texts += data.count(self._text)
        return self._renaming.apply(self._take_usage(data))

    def rest(self) -> bytes:
        """Return the last event of a stream that ended without its blank line."""
        self._tail = self._tail.rstrip(b"\r\n")
        return self.feed(b"\n\n") if self._tail else b""

    def _take_usage(self, data: bytes) -> bytes:
        """Count the usage in complete events; return them without the usage event that the client did not request."""
        at = data.find(b'"usage"')  # much faster than the pattern if there is none
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
        """Count an event's usage; return whether it is the usage event that the client did not request."""
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
    """Return the usage in a complete JSON response."""
    try:
        return _answered.decode(body).usage or Usage()
    except UNREADABLE:
        return Usage()
