"""Turns an engine's response into the bytes for its client. Sans-I/O; `Exchange` decides.

A stream is forwarded event by event, in chunks (RFC 9112 §7.1) or until the connection closes; anything else is
buffered until it is complete, because renaming the model changes its length.
"""

import re
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tunewarden import problems
from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import Refusal, decoded
from tunewarden.engine_protocol.streams import response_error_event
from tunewarden.errors import Error
from tunewarden.gateway.rewriting import (
    EVENTS_OF_CHAT,
    UNSAID,
    Counted,
    Events,
    Renaming,
    StreamRewriter,
    usage_of,
)
from tunewarden.gateway.routing import ANSWER_BYTES_MAX

OPENAI_VERSION = b"2020-10-01"
PASSED_ON = (b"retry-after", b"x-should-retry")  # headers of an error response
END = b"0\r\n\r\n"
NOTHING = 0, 0, 0
TOKENS_DIGITS_MAX = 9
# Of an event with text, where none is at hand to be measured: what vLLM and llama.cpp send.
EVENT_BYTES = 240
# Of an event of the Responses API; in a text its quotes would be escaped.
NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')


class Relay:
    """One response: `begin`, then `feed` for each read, the last one with `is_end`.

    `lines` are the header lines that depend on the engine; they are complete when `feed` returns bytes.
    """

    __slots__ = (
        "_events",
        "_input_tokens",
        "_is_chunked",
        "_last_events",
        "_pieces",
        "_renaming",
        "_rewriter",
        "_size",
        "first_at",
        "is_stream",
        "lines",
        "status",
        "tokens",
    )

    def __init__(
        self,
        renaming: Renaming,
        status: int,
        headers: dict[bytes, bytes],
        *,
        is_chunked: bool,
        hides_usage: bool,
        events: Events = EVENTS_OF_CHAT,
    ) -> None:
        self._renaming = renaming
        self._is_chunked = is_chunked
        self._events = events
        self._last_events = b""
        self._rewriter: StreamRewriter | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self.status = status
        self.is_stream = False
        self.tokens: Counted | None = None  # known at the end
        self.first_at = 0.0  # when its first bytes were written, in seconds of the event loop
        kind = headers.get(b"content-type", b"application/json")
        self.lines = b"content-type: %b\r\n" % kind
        if kind.startswith(b"text/event-stream"):
            self.is_stream = True
            self._input_tokens = headers.get(paths.INPUT_TOKENS)
            self._rewriter = StreamRewriter(renaming, hides_usage=hides_usage)
            self.lines += b"cache-control: no-store\r\n"
            if is_chunked:
                self.lines += b"transfer-encoding: chunked\r\n"
            return
        if status != 200:
            for name in PASSED_ON:
                if name in headers:
                    self.lines += b"%b: %b\r\n" % (name, headers[name])

    def feed(self, piece: bytes, *, is_end: bool) -> bytes | None:
        """Return the next bytes for the client; None while a response that is not a stream is incomplete.

        Raises ConnectionError for a response that is too large or not an event stream.
        """
        if self._rewriter is None:
            return self._whole(piece, is_end=is_end)
        events = self._rewriter.feed(piece)
        if events:
            self._last_events = events
            self._size += len(events)
        if not is_end:
            return framed(events, self._is_chunked)
        events += self._rewriter.rest()
        self.tokens = self._rewriter.usage.counted
        return framed(events, self._is_chunked) + (END if self._is_chunked else b"")

    def tokens_so_far(self) -> Counted:
        """Return what a stream that is not complete has cost: as the engine told it last, else about as much.

        An event with text counts as a token; of the input only some engines say at the head how long it is.
        """
        rewriter = self._rewriter
        if rewriter is None:
            return NOTHING
        if rewriter.usage is not UNSAID:
            return rewriter.usage.counted
        told = self._input_tokens or b""
        given = int(told) if told.isdigit() and len(told) <= TOKENS_DIGITS_MAX else 0
        return given, max(0, self._events_so_far() - self._events.opening), 0

    def _events_so_far(self) -> int:
        """Return how many events were sent: by their number, else by their size, since to count all costs each stream."""
        last = self._last_events
        if self._events.is_responses:
            numbers = NUMBER.findall(last)
            return int(numbers[-1]) + 1 if numbers else 0
        count = last.count(self._events.text)
        return round(self._size * count / len(last)) if count else self._size // EVENT_BYTES

    def error_events(self, error: Error) -> bytes:
        """Return the error event of a stream that has begun, and its end."""
        body = problems.wire(error).body
        if self._events.is_responses:
            numbers = NUMBER.findall(self._last_events)
            number = int(numbers[-1]) + 1 if numbers else 0
            event = response_error_event(decoded(body, Refusal), number)
        else:
            event = b"data: " + body + b"\n\n"
        return framed(event, self._is_chunked) + (END if self._is_chunked else b"")

    def _whole(self, piece: bytes, *, is_end: bool) -> bytes | None:
        if self._pieces or not is_end:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > ANSWER_BYTES_MAX:
                raise ConnectionError("the response is too large")
            if not is_end:
                return None
            piece = b"".join(self._pieces)
        self.tokens = usage_of(piece).counted
        body = self._renaming.apply(piece)
        self.lines += b"content-length: %d\r\n" % len(body)
        return body


def framed(data: bytes, is_chunked: bool) -> bytes:  # noqa: FBT001  on the hot path
    """Return a part of a stream, framed as a chunk if needed."""
    if not is_chunked or not data:
        return data
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(
    status: int,
    lines: bytes,
    defaults: bytes,
    request_id: str,
    organization: str | None,
    *,
    elapsed_ms: float,
    is_kept: bool,
) -> bytes:
    """Return a response head: `lines`, the server's `defaults`, and the headers of every response."""
    return (
        b"%b%b%bx-request-id: %b\r\nopenai-version: %b\r\nopenai-processing-ms: %d\r\n"
        b"x-content-type-options: nosniff\r\n%b%b\r\n"
    ) % (
        STATUS_LINE[status],
        defaults,
        lines,
        request_id.encode(),
        OPENAI_VERSION,
        elapsed_ms,
        b"" if organization is None else _organization(organization),
        b"" if is_kept else b"connection: close\r\n",
    )


@lru_cache(maxsize=1024)
def _organization(name: str) -> bytes:
    return b"openai-organization: %b\r\n" % name.encode()
