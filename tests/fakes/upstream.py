"""A small OpenAI-compatible server on a real socket. Each request says in `fake` how it is answered.

Its own HTTP/1.1, because tests need to break it at chosen bytes.
"""

import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

PROMPT_TOKENS = 7
WORDS = ("Ahoy", ", ", "the harbour", " is “open”", ' and "model":"', " is not a key", ".")
ENDLESS_PAUSE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    fields: dict[str, Any]


@dataclass
class FakeUpstream:
    """Answers chat, completions and responses for the models that it is told to serve, until the block ends."""

    models: tuple[str, ...] = ("upstream/model-1",)
    # The only inference route that it has; None: all.
    only: str | None = None
    # The API key that it asks for; None: none.
    key: str | None = None
    requests: list[Recorded] = field(default_factory=list)
    # The headers of each time that its models were listed.
    lists: list[dict[str, str]] = field(default_factory=list)
    # When the other end was seen to be gone, in time.monotonic().
    gone_at: list[float] = field(default_factory=list)
    sent_bytes: int = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._open: set[socket.socket] = set()
        self._is_up = True
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Be down: nothing listens, and what was open is closed."""
        self._is_up = False
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.close_connections()

    def close_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def connections(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        while self._is_up:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        try:
            with connection, connection.makefile("rb") as reader:
                while (request := _read(reader)) is not None:
                    if request.fields:
                        self.requests.append(request)
                    if not self._answer(connection, request):
                        return
        except OSError:
            self.gone_at.append(time.monotonic())
        finally:
            self._open.discard(connection)

    def _answer(self, connection: socket.socket, request: Recorded) -> bool:
        """Answer; return whether the connection is kept."""
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            refused = {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}
            return _send_json(connection, 401, refused)
        if request.path == "/v1/models":
            self.lists.append(request.headers)
            listed = {"object": "list", "data": [{"id": name} for name in self.models]}
            return _send_json(connection, 200, listed)
        how: dict[str, Any] = request.fields.get("fake") or {}
        time.sleep(how.get("silent", 0))
        if how.get("informational"):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
        if "status" in how:
            return _send_json(
                connection, how["status"], {"error": {"message": "No."}}, how.get("headers", {})
            )
        is_here = self.only in {None, request.path}
        # or it is no request of inference
        if not is_here or request.fields.get("model") not in self.models:
            return _send_json(connection, 404, {"error": {"message": "?", "code": None}})
        if request.fields.get("stream"):
            return self._stream(connection, request, how)
        return _send_whole(connection, _whole(request), how)

    def _stream(self, connection: socket.socket, request: Recorded, how: dict[str, Any]) -> bool:
        framing: str = how.get("framing", "chunked")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        if framing == "chunked":
            head += b"transfer-encoding: chunked\r\n"
        connection.sendall(head + b"\r\n")
        for piece in _pieces(_events(request, how), how.get("cut_seed")):
            sent = b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece
            connection.sendall(sent)
            self.sent_bytes += len(sent)
            time.sleep(how.get("pause", 0))
        if "die_after" in how:
            return _reset(connection)
        if framing == "chunked":
            connection.sendall(b"0\r\n\r\n")
        return framing == "chunked"


def _read(reader: Any) -> Recorded | None:
    line = reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := reader.readline().strip()) != b"":
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Recorded(line.split()[1].decode(), headers, json.loads(body) if body else {})


def _send_json(
    connection: socket.socket, status: int, answer: object, headers: dict[str, str] | None = None
) -> bool:
    body = json.dumps(answer).encode()
    lines = {"content-type": "application/json", "content-length": len(body), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.sendall(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body)
    return True


def _send_whole(connection: socket.socket, answer: object, how: dict[str, Any]) -> bool:
    body = json.dumps(answer).encode()
    if how.get("framing") == "close":
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n" + body
        )
        return False
    if "cut_at" in how:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        connection.sendall((head + body)[: how["cut_at"]])
        return _reset(connection)
    return _send_json(connection, 200, answer)


def _reset(connection: socket.socket) -> bool:
    # RST, as a process that is killed in the middle leaves it.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _usage(cached: int | None = None) -> dict[str, Any]:
    count = len(WORDS)
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {
        **details,
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": count,
        "total_tokens": PROMPT_TOKENS + count,
    }


def _response(request: Recorded, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part]}
    count = len(WORDS)
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": PROMPT_TOKENS + count,
    }
    is_done = status == "completed"
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": request.fields["model"],
        "status": status,
        "output": [{**item, "status": status}] if is_done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if is_done else None,
    }


def _response_events(request: Recorded) -> Iterator[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response(request, "in_progress")},
        *(
            {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
            for word in WORDS
        ),
        {"type": "response.completed", "response": _response(request)},
    ]
    for number, event in enumerate(events):
        data = json.dumps({**event, "sequence_number": number}, ensure_ascii=False)
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()


def _whole(request: Recorded) -> dict[str, Any]:
    if request.path.endswith("/responses"):
        return _response(request)
    if request.path.endswith("/embeddings"):
        return {
            "object": "list",
            "model": request.fields["model"],
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
        }
    said = {"index": 0, "finish_reason": "stop"}
    is_chat = request.path.endswith("/chat/completions")
    if is_chat:
        said |= {"message": {"role": "assistant", "content": "".join(WORDS)}}
    else:
        said |= {"text": "".join(WORDS)}
    how = request.fields.get("fake") or {}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": 1,
        "model": request.fields["model"],
        "choices": [said],
        "usage": None if how.get("untold") else _usage(how.get("cached")),
    }


def _events(request: Recorded, how: dict[str, Any]) -> Iterator[bytes]:
    if request.path.endswith("/responses"):
        yield from _response_events(request)
        return
    end: bytes = how.get("newline", "\n").encode() * 2
    options = request.fields.get("stream_options") or {}
    shared = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": request.fields["model"],
    }

    def event(**fields: object) -> bytes:
        return b"data: " + json.dumps(shared | fields, ensure_ascii=False).encode() + end

    if "flood_bytes" in how or how.get("endless"):
        left = how.get("flood_bytes", float("inf"))
        while left > 0:
            piece = event(choices=[{"index": 0, "delta": {"content": "x" * how.get("size", 8)}}])
            left -= len(piece)
            yield piece
            if how.get("endless"):
                time.sleep(ENDLESS_PAUSE_SECONDS)
        return
    for count, word in enumerate(WORDS):
        if count == how.get("die_after"):
            return
        yield event(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}])
    yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if options.get("include_usage") and not how.get("untold"):
        yield event(choices=[], usage=_usage())
    yield b"data: [DONE]" + (b"" if how.get("unfinished") else end)


def _pieces(events: Iterator[bytes], seed: int | None) -> Iterator[bytes]:
    if seed is None:
        yield from events
        return
    numbers = random.Random(seed)
    left = b"".join(events)
    while left:
        size = numbers.choice((1, 2, 3, 17, 200))
        yield left[:size]
        left = left[size:]
