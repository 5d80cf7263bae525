"""A strict, bounded request parser on httptools. Sans-I/O. RFC 9112.

httptools ends a message after its head when it offers an upgrade, whatever its Content-Length says (httptools#124,
uvicorn#2722): the body would be read as the next request. RFC 9110 §7.8 lets a server ignore the upgrade.
"""

import re
from typing import Protocol

import httptools

from tunewarden.errors import Error, Kind
from tunewarden.gateway.request_lines import RequestLines

HEAD_BYTES_MAX = 64 * 1024  # OpenAI asks its clients for less than 64 KiB
# RFC 9110 §7.2: a DNS name or an IP address, and an optional port; it may be empty.
HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
SCHEMES = (b"http", b"https")
HEADERS_MAX = 128
HEADER_COST = (
    64  # overhead charged for a header line on top of its bytes: about what storing it takes
)
# Limit of bytes received without progress: an unfinished head, chunk extensions, trailers.
UNFINISHED_BYTES_MAX = HEAD_BYTES_MAX + 2048


class Receiver(Protocol):
    """Receives the parts of requests in order."""

    def on_message_begin(self) -> None:
        """Begin a request."""

    def on_headers_complete(self) -> None:
        """Process the complete head: the parser holds its `url`, `path`, `headers`, `method` and so on."""

    def on_body(self, body: bytes) -> None:
        """Receive a piece of the body."""

    def on_message_complete(self) -> None:
        """Note that the request is complete."""


class RequestParser:
    """Parses the requests of one connection, from reads that may end anywhere.

    After an error, and after a request that closes the connection, it ignores further input.
    """

    __slots__ = (
        "_head_bytes", "_is_ended_by_offer", "_is_in_head", "_is_in_message", "_is_over", "_lines",
        "_parser", "_receiver", "_trailers", "_unfinished_bytes",
        "headers", "is_kept", "is_rewritten", "method", "path", "query", "url", "version",
    )  # fmt: skip

    def __init__(self, receiver: Receiver) -> None:
        # Of the request whose head is complete; header names are in lower case.
        self.method = b""
        self.url = b""
        self.path = b""
        self.query = b""
        self.version = ""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_kept = True  # Whether another request may follow it on the connection.
        self.is_rewritten = False  # Whether the head was changed (an upgrade was removed).
        self._is_in_head = False
        self._is_in_message = False
        self._is_over = False
        self._is_ended_by_offer = False
        self._head_bytes = 0
        self._trailers = 0
        self._unfinished_bytes = 0
        self._lines = RequestLines(UNFINISHED_BYTES_MAX)
        self._receiver = receiver
        self._parser = self._new_parser()

    def feed(self, data: bytes | memoryview) -> None:
        """Parse a read. Raises Error for invalid or unsupported HTTP, and what the receiver raises."""
        if self._is_over:
            return
        self._unfinished_bytes += len(data)
        self._lines.begin_read(data, is_between=not self._is_in_message)
        rest = memoryview(data)
        try:
            while rest:
                rest = self._feed(rest)
        except httptools.HttpParserError as error:
            if not self._fails():
                return
            raise _reason(error) from error
        finally:
            self._lines.end_read(is_in_head=self._is_in_head and not self._is_over)
        if self._unfinished_bytes > UNFINISHED_BYTES_MAX:
            self._is_over = True
            raise _head_too_large()

    def forget(self) -> None:
        """Release the parsed head."""
        self.url = self.path = self.query = b""
        self.headers = []

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for 100 Continue; never in HTTP/1.0."""
        expected = [value.lower() for name, value in self.headers if name == b"expect"]
        return expected == [b"100-continue"] and self.version == "1.1"

    def stop(self) -> None:
        """Ignore further input, and release the unfinished request."""
        self._is_over = True
        self.forget()
        self._lines = RequestLines(UNFINISHED_BYTES_MAX)
        self._parser = self._new_parser()

    # What httptools calls:

    def on_message_begin(self) -> None:
        """Begin a head."""
        if self._is_over:
            raise _malformed()  # never sent: the connection is closed after the previous request
        self._is_in_head = self._is_in_message = True
        self.forget()
        self._head_bytes = 0
        self._receiver.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Collect."""
        self.url += url
        self._charge(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header of the head; trailers are dropped, and bounded as headers are."""
        if self._is_in_head:
            self.headers.append((name.lower(), value))
        else:
            self._trailers += 1
        self._charge(len(name) + len(value) + HEADER_COST)

    def on_headers_complete(self) -> None:
        """Check the head and pass it on, unless httptools ends the message here because of an upgrade."""
        parser = self._parser
        self.method = parser.get_method()
        self.version = parser.get_http_version()
        if not self.is_rewritten:
            self._lines.check(b"%b %b HTTP/%b\r\n" % (self.method, self.url, self.version.encode()))
        if self.method == b"CONNECT":
            raise Error(Kind.INVALID, "CONNECT is not supported.")
        if parser.should_upgrade():
            self._is_ended_by_offer = True
            return
        _check(self.version, self.headers)
        url = httptools.parse_url(self.url)
        if b"#" in self.url or url.userinfo or (url.schema or b"http") not in SCHEMES:
            raise Error(Kind.INVALID, "The request target is not a path or an http URL.")
        self.path, self.query = url.path or b"/", url.query or b""
        self.is_kept = self.version == "1.1" and parser.should_keep_alive()
        self._is_in_head = False
        self._head_bytes = self._trailers = 0
        self._unfinished_bytes = 0
        self._receiver.on_headers_complete()

    def on_chunk_header(self) -> None:
        """Note that the body is chunked."""
        self._lines.lose_place()

    def on_body(self, body: bytes) -> None:
        """Pass on."""
        self._unfinished_bytes = 0
        self._lines.skip(len(body))
        self._receiver.on_body(body)

    def on_message_complete(self) -> None:
        """Pass on, unless an upgrade ended the message."""
        if not self._is_ended_by_offer:
            self._is_in_message = False
            self._unfinished_bytes = 0
            self._is_over = not self.is_kept
            self._receiver.on_message_complete()

    # Parts:

    def _fails(self) -> bool:
        """Ignore further input; return whether a request was being parsed."""
        was_over, self._is_over = self._is_over, True
        return not was_over

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Input after the last request of a connection is ignored here; it is not an error of that request.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _feed(self, data: memoryview) -> memoryview:
        """Parse up to an upgrade; return what follows its head."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            rest = data[offer.args[0] :]
        else:
            return data[:0]
        self._begin_again()  # Outside the `except` block, so that errors keep their own context.
        return rest

    def _begin_again(self) -> None:
        """Parse the same head again without the upgrade, so that its own headers frame its body."""
        start = self.method, self.url, self.version.encode()
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0] != b"upgrade"]
        self._is_ended_by_offer = False
        self._parser = self._new_parser()
        self.is_rewritten = True
        self._parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (*start, b"".join(lines)))
        self.is_rewritten = False

    def _charge(self, size: int) -> None:
        self._head_bytes += size
        count = len(self.headers) if self._is_in_head else self._trailers
        if self._head_bytes > HEAD_BYTES_MAX or count > HEADERS_MAX:
            raise _head_too_large()


def _check(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Raise Error for a head that is ambiguous (request smuggling) or asks for something unsupported."""
    names = [name for name, _ in headers]
    if version not in {"1.0", "1.1"}:
        raise Error(Kind.INVALID, "The HTTP version must be 1.0 or 1.1.")
    hosts = names.count(b"host")
    if hosts > 1 or (not hosts and version == "1.1"):  # RFC 9112 §3.2
        raise Error(Kind.INVALID, "A request must have one Host header.")
    if hosts and not HOST.fullmatch(dict(headers)[b"host"]):
        raise Error(Kind.INVALID, "The Host header is not a host and a port.")
    if names.count(b"authorization") > 1:
        raise Error(Kind.INVALID, "A request must have at most one Authorization header.")
    if b"transfer-encoding" in names:
        _check_transfer_encoding(version, headers)
    if names.count(b"content-length") > 1:
        raise _malformed()
    if b"content-encoding" in names:
        codings = {value.lower() for name, value in headers if name == b"content-encoding"}
        if codings != {b"identity"}:
            said = "The body of a request must not have a Content-Encoding."
            raise Error(Kind.UNSUPPORTED_MEDIA_TYPE, said)


def _check_transfer_encoding(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Raise Error unless the body's framing is chunked and nothing else. RFC 9112 §6.1."""
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings != [b"chunked"]:
        said = "The only Transfer-Encoding that is supported is chunked, once."
        raise Error(Kind.NOT_IMPLEMENTED, said)
    if version == "1.0" or any(name == b"content-length" for name, _ in headers):
        raise _malformed()


def _reason(error: httptools.HttpParserError) -> Exception:
    """Return the exception that a callback raised, else a parse error."""
    reason = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and isinstance(reason, Exception):
        return _malformed() if isinstance(reason, httptools.HttpParserError) else reason
    return _malformed()


def _malformed() -> Error:
    return Error(Kind.INVALID, "Invalid HTTP request received.")


def _head_too_large() -> Error:
    said = (
        f"Request header fields too large (limit {HEADERS_MAX} fields and {HEAD_BYTES_MAX} bytes)."
    )
    return Error(Kind.HEAD_TOO_LARGE, said)
