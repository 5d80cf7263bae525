"""Odd HTTP messages, what h11 makes of them, and whether a server's answers agree with that.

Each request asks for a model whose name nobody else uses, so that an error that names it tells whose answer it is.
"""

import asyncio
import contextlib
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h11

NAMES = re.compile(rb"odd-\d+")
REFUSALS = {400, 408, 415, 429, 431, 501}
AT_ONCE = 32
ANSWER_SECONDS = 20.0
QUIET_SECONDS = 0.02  # for answers that must not come
VERSIONS = ["HTTP/1.1"] * 12 + [
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/1.2",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1x",
    "RTSP/1.0",
    " HTTP/1.1",
    "HTTP/11",
    "",
]
METHODS = (
    ["POST"] * 6
    + ["GET"] * 4
    + ["PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "post", "GE T", "BREW"]
)
CONNECTIONS = [
    "Upgrade",
    "upgrade",
    "keep-alive, Upgrade",
    "Upgrade, HTTP2-Settings",
    "upgrade, close",
    "close",
    "x",
]
UPGRADES = ["h2c", "websocket", "foo/2", "TLS/1.0, h2c", ""]
CODINGS = ["chunked"] * 5 + ["Chunked", "chunked, chunked", "gzip, chunked", "identity", "xchunked", "\x0bchunked",
    "chunked;q=1", "chunked, identity", "", " chunked ", "chunk\ted"]  # fmt: skip
ODD_LINES = ["x: a\r\n b", "host: b", "x : a", ": a", "x", "x:\x00", "x: \x01", "\tx: a", "x: \xff", "x:a\rb", "x: a\nb: c",
    "content-encoding: gzip", "expect: 100-continue", "keep-alive: 5", "te: trailers", "trailer: x"]  # fmt: skip


@dataclass(slots=True)
class Sent:
    """What is sent on one connection: pieces, each in a write of its own."""

    pieces: list[bytes]

    @property
    def whole(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(slots=True)
class Framed:
    """What h11 makes of it: the names that each request may be answered with, and how it ended."""

    names: list[set[bytes]] = field(default_factory=list)
    complete: int = 0
    is_malformed: bool = False
    is_last: bool = False  # the connection closes behind the last of them


@dataclass(slots=True)
class Answers:
    """What a server answered."""

    statuses: list[int]
    names: list[bytes | None]
    is_closed: bool
    says_close: bool = False  # in the last of them


class Generator:
    """Streams of requests, one in two of which is odd in some way."""

    def __init__(self, seed: int, key: str) -> None:
        self._random = random.Random(seed)
        self._key = key
        self._numbers = itertools.count(1)

    def stream(self) -> tuple[Sent, int]:
        """Return what one connection sends, and how many messages that is."""
        count = self._random.choice([1, 1, 2, 3, 5])
        messages = [self._message() for _ in range(count)]
        messages.append([self._head("GET", self._name(), "HTTP/1.1", [], ["connection: close"])])
        pieces: list[bytes] = []
        for message in messages:
            if pieces and self._chance(0.6):
                pieces[-1] += message.pop(0)
            pieces += message
        if self._chance(0.3):
            whole = b"".join(pieces)
            cuts = sorted(
                self._random.randrange(1, len(whole)) for _ in range(self._random.randint(1, 4))
            )
            pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
        return Sent([piece for piece in pieces if piece]), len(messages)

    def _message(self) -> list[bytes]:
        """Return a message's head and body."""
        choice = self._random.choice
        name, lines = self._name(), []
        method, version = choice(METHODS), "HTTP/1.1"
        odd = self._random.random()
        if odd < 0.1:
            version = choice(VERSIONS)
        elif odd < 0.2:
            lines.append(choice(ODD_LINES))
        if self._chance(0.4):
            lines += [f"Connection: {choice(CONNECTIONS)}", f"Upgrade: {choice(UPGRADES)}"]
        body = self._body(name)
        kind = self._random.random()
        if kind < 0.45:
            lines.append(f"content-length: {len(body)}")
        elif kind < 0.75:
            lines.append(
                f"Transfer-Encoding: {'chunked' if self._chance(0.7) else choice(CODINGS)}"
            )
            body = self._chunked(body)
        elif kind < 0.85:
            lines += self._two_framings(len(body))
            body = body if self._chance(0.5) else self._chunked(body)
        else:
            body = b"" if self._chance(0.7) else body
        self._random.shuffle(lines)
        head = self._head(method, name, version, lines, [])
        if self._chance(0.03):
            head = head.replace(b"\r\n", choice([b"\n", b"\r"]), self._random.randint(1, 9))
        if self._chance(0.03):
            head = b"\r\n" + head
        return [head, body] if self._chance(0.7) else [head + body]

    def _head(
        self, method: str, name: str, version: str, lines: list[str], more: list[str]
    ) -> bytes:
        path = (
            "/v1/chat/completions"
            if self._chance(0.5) and method == "POST"
            else f"/v1/models/{name}"
        )
        hosts = (
            ["host: a"] if self._chance(0.97) else self._random.choice([[], ["host: a", "host: b"]])
        )
        start = f"{method} {path} {version}".rstrip()
        spelled = [*hosts, f"authorization: Bearer {self._key}", *lines, *more]
        return "\r\n".join([start, *spelled, "", ""]).encode("latin-1")

    def _body(self, name: str) -> bytes:
        """Return JSON that names a model, or what would be a request of its own if it were read as one."""
        if self._chance(0.5):
            return self._head("GET", self._name(), "HTTP/1.1", [], []) * self._random.randint(1, 2)
        return json.dumps({"model": name, "messages": []}).encode()

    def _chunked(self, body: bytes) -> bytes:
        choice, sent, at = self._random.choice, b"", 0
        while at < len(body):
            size = self._random.randint(1, 60)
            piece = body[at : at + size]
            at += size
            written = choice([b"%x", b"%X", b"0%x", b"%x"]) % len(piece)
            if self._chance(0.02):
                written = choice([b"-1", b"0x5", b"", b"g", b" 5", b"ffffffffffffffffff", b"5 "])
            sent += written + (b";a=b" if self._chance(0.05) else b"")
            sent += (
                b"\r\n"
                + piece
                + (b"\r\n" if self._chance(0.99) else choice([b"\n", b"", b"x\r\n"]))
            )
        trailer = b"authorization: Bearer x\r\ncontent-length: 9\r\n" if self._chance(0.1) else b""
        return sent + b"0\r\n" + trailer + b"\r\n"

    def _two_framings(self, length: int) -> list[str]:
        return self._random.choice([
            [f"content-length: {length}", "transfer-encoding: chunked"],
            ["transfer-encoding: chunked", f"content-length: {length}"],
            [f"content-length: {length}", f"content-length: {length}"],
            [f"content-length: {length}", f"content-length: {length + 1}"],
            [f"content-length: {length}, {length}"], [f"content-length: +{length}"], ["content-length: -1"],
            [f"content-length: 0x{length:x}"], [f"content-length:\t{length} "], [f"Content-Length : {length}"],
            [f"content-length: {max(0, length - 9)}"], [f"content-length: {length + 9}"], ["content-length: "],
            ["transfer-encoding: chunked", "transfer-encoding: chunked"], [f"content-length: {'9' * 30}"],
            ["transfer-encoding: chunked", "transfer-encoding: identity"], [f"content_length: {length}"],
        ])  # fmt: skip

    def _name(self) -> str:
        return f"odd-{next(self._numbers)}"

    def _chance(self, part: float) -> bool:
        return self._random.random() < part


def framed_by_h11(whole: bytes) -> Framed:
    """Return what h11, as a server that answers every request, makes of what was sent.

    Empty lines before a request are left out: h11 refuses them, and RFC 9112 §2.2 wants them ignored.
    """
    found = Framed()
    connection = _expecting(whole)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                found.names.append(set(NAMES.findall(event.target)))
                body = b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.complete += 1
                found.names[-1] |= set(NAMES.findall(body)) if not found.names[-1] else set()
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    found.is_last = True
                    return found
                connection = _expecting(connection.trailing_data[0])
            else:
                return found
    except h11.RemoteProtocolError:
        found.is_malformed = True
        return found


def _expecting(data: bytes) -> h11.Connection:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data.lstrip(b"\r\n"))
    return connection


def what_is_wrong(framed: Framed, answers: Answers) -> str | None:
    """Return what in the answers contradicts h11's framing; None if nothing does."""
    for name, allowed in zip(answers.names, framed.names, strict=False):
        if name is not None and allowed and name not in allowed:
            return f"{name!r} was answered where {allowed} was asked for"
    is_refused = answers.says_close and answers.statuses[-1] in REFUSALS
    if answers.says_close and not answers.is_closed:
        return "the connection was not closed as was said"
    count = len(answers.statuses)
    if count - is_refused > len(framed.names):
        return f"{count} answers to {len(framed.names)} requests"
    if count < framed.complete and not answers.is_closed:
        return f"{count} answers to {framed.complete} requests, and the connection is open"
    if count < framed.complete and (not answers.statuses or answers.statuses[-1] < 400):
        return f"{count} answers to {framed.complete} requests, then closed without a refusal"
    return None


async def ask(address: tuple[str, int], sent: Sent, framed: Framed) -> Answers:
    """Send each piece in a write of its own and return what is answered."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        with contextlib.suppress(ConnectionError):
            for number, piece in enumerate(sent.pieces):
                if number:
                    await asyncio.sleep(0.001)
                writer.write(piece)
                await writer.drain()
        return await _read(reader, framed)
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, framed: Framed) -> Answers:
    """Read until the server closes, or until it has answered all and says nothing more."""
    found = Answers([], [], is_closed=False)
    while True:
        is_enough = len(found.statuses) >= framed.complete
        is_enough = is_enough and not framed.is_last and not found.says_close
        try:
            async with asyncio.timeout(QUIET_SECONDS if is_enough else ANSWER_SECONDS):
                answer = await _next(reader)
        except TimeoutError:
            return found
        except (ConnectionError, asyncio.IncompleteReadError):
            found.is_closed = True
            return found
        status, found.says_close, body = answer
        if status != 100:
            name = NAMES.search(body)
            found.statuses.append(status)
            found.names.append(name[0] if name else None)


async def _next(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Return the next answer's status, whether it is the last one, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split()[1])
    says_close = b"\r\nconnection: close\r\n" in head
    if status == 100:
        return status, False, b""
    length = re.search(rb"content-length: (\d+)", head)
    if length is not None:
        return status, says_close, await reader.readexactly(int(length[1]))
    body = b""
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size + 2)
        await reader.readline()
    return status, says_close, body


async def compare(
    address: tuple[str, int], generator: Generator, messages: int, report: Callable[[str], object]
) -> tuple[int, int, int]:
    """Send so many messages; return how many were sent, answered and wrongly answered."""
    counts = [0, 0, 0]

    def streams() -> Iterator[Sent]:
        while counts[0] < messages:
            sent, count = generator.stream()
            counts[0] += count
            yield sent

    left = streams()

    async def work() -> None:
        for sent in left:
            framed = framed_by_h11(sent.whole)
            answers = await ask(address, sent, framed)
            counts[1] += len(answers.statuses)
            if (wrong := what_is_wrong(framed, answers)) is not None:
                counts[2] += 1
                report(f"{wrong}: {sent.pieces!r} -> {answers}")

    await asyncio.gather(*[work() for _ in range(AT_ONCE)])
    return counts[0], counts[1], counts[2]
