"""Rewrites the model's name in bodies, and reads the token usage of responses.

Engines know a model by its internal id, clients by its public one. In a response the name is written as
`"model":"…"`; these bytes cannot occur inside a JSON string, where quotes are escaped, so they can be
replaced without parsing. Streams are rewritten at event boundaries.
"""

import re
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

import msgspec

# In a string its quotes would be escaped; most chunks say null.
USAGE = re.compile(rb'"usage"\s*:\s*\{')
# As the last field of an object; in a string its first quote would be escaped, or end the string.
LAST_USAGE = b',"usage":{'
TO_ITS_BRACE = len(LAST_USAGE) - 1
EVENT_BYTES_MAX = 8 * 1024 * 1024
RENAMINGS_MAX = 1024


# The most tokens an engine may report for one request, so that no report overflows the counters.
OUTPUT_MAX = 2**31
Tokens = Annotated[int, msgspec.Meta(ge=0, le=OUTPUT_MAX)]
# Raised for invalid or too deeply nested JSON: usage is counted on a best-effort basis.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


# (input, output, of the input: cached).
Counted = tuple[int, int, int]


# Not followed by the garbage collector (`gc=False`), which each answer pays for: they hold numbers only.
class Details(msgspec.Struct, gc=False):
    """What engines say of the input."""

    cached_tokens: Tokens | None = None


class Usage(msgspec.Struct, gc=False):
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
    """The events of an API's streams: those with text have the field `text`; the first `opening` events have no text."""

    text: bytes
    opening: int = 0
    is_responses: bool = False


EVENTS_OF_CHAT: Final = Events(b'"delta"', opening=1)  # the first one is the role
EVENTS_OF_COMPLETIONS: Final = Events(b'"text"')
# The response, its item and its part are announced, the first twice.
EVENTS_OF_RESPONSES: Final = Events(b'"delta"', opening=4, is_responses=True)


class _Response(msgspec.Struct):
    usage: Usage | None = None


class _Answered(msgspec.Struct):
    usage: Usage | None = None
    response: _Response | None = None  # in the last event of a stream of the responses API
    choices: list[msgspec.Raw] | None = None


class _Stated(msgspec.Struct, gc=False):
    usage: Usage | None = None


_answered = msgspec.json.Decoder(_Answered)
_stated = msgspec.json.Decoder(_Stated)
_usage = msgspec.json.Decoder(Usage)


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

    __slots__ = ("_hides_usage", "_renaming", "_tail", "usage")

    def __init__(self, renaming: Renaming, *, hides_usage: bool) -> None:
        self.usage = UNSAID
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
    """Return the usage in a complete JSON response.

    Most engines write it last. Then what comes before it is not read: if one bracket is all that follows its own object,
    that bracket closes the response, so it is a field of the response itself.
    """
    at = body.rfind(LAST_USAGE)
    if at >= 0:
        try:
            return _usage.decode(body[at + TO_ITS_BRACE : -1])
        except UNREADABLE:
            pass  # it is elsewhere
    try:
        return _stated.decode(body).usage or UNSAID
    except UNREADABLE:
        return UNSAID
