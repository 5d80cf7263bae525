"""A response and the events of its stream, made of a chat's chunks."""

from collections.abc import Iterator
from typing import Any

import msgspec

from tunewarden.clock import Clock
from tunewarden.embedded_engine.answers import refusal
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.responses.chunks import Choice, ToolCall, Usage, chunks_of
from tunewarden.embedded_engine.responses.output import Fields, FunctionCall, Item, Message
from tunewarden.engine_protocol.streams import response_error_event
from tunewarden.errors import Error
from tunewarden.ids import Prefix, mint

encoded = msgspec.json.encode


class Translation:
    """What a chat's stream is as a response: events, if the client wants a stream, or one JSON object.

    Events have numbers in their order. A message or call ends where the next one begins.
    """

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._streams = ask.stream
        self._clock = clock
        self._id = mint(Prefix.RESPONSE)
        self._shown = _shown(ask, int(clock.now().timestamp()))
        self._items: list[Item] = []
        # The chat's number of the call that grows.
        self._call = -1
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._events: list[bytes] = []
        self._number = 0

    def opening(self) -> bytes:
        """Return the first events."""
        self._emit("response.created", response=self._response("in_progress"))
        self._emit("response.in_progress", response=self._response("in_progress"))
        return self._taken()

    def read(self, events: bytes) -> bytes:
        """Return the events for some of the chat's."""
        for chunk in chunks_of(events):
            for choice in chunk.choices:
                self._take(choice)
            if chunk.usage is not None:
                self._usage = chunk.usage
        return self._taken()

    def closing(self) -> bytes:
        """Return the last event; all of the chat has been read."""
        status = self._status()
        self._emit(f"response.{status}", response=self._response(status, self._output()))
        return self._taken()

    def failed(self, error: Error) -> bytes:
        """Return the end of a stream that an error cuts."""
        event = response_error_event(refusal(error), self._number)
        self._number += 1
        problem = {"code": "server_error", "message": error.message}
        response = self._response("failed", self._output(), problem)
        self._emit("response.failed", response=response)
        return event + self._taken()

    def whole(self) -> Iterator[bytes]:
        """Yield the response as JSON, in small pieces; all of the chat has been read."""
        yield encoded(self._response(self._status(), []))[: -len(b"[]}")] + b"["
        for at, item in enumerate(self._items):
            yield b"," * bool(at)
            yield from _pieces(item)
        yield b"]}"

    def _take(self, choice: Choice) -> None:
        logprobs = None if choice.logprobs is None else choice.logprobs.content
        if choice.delta.content or logprobs is not None:
            self._add_text(choice.delta.content or "", logprobs)
        for call in choice.delta.tool_calls or ():
            self._add_call(call)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason
            if not self._items:
                self._add_text("", None)
            self._end_item("incomplete" if self._finish == "length" else "completed")

    def _add_text(self, text: str, logprobs: msgspec.Raw | None) -> None:
        item = self._items[-1] if self._items else None
        if not isinstance(item, Message):
            item = Message()
            self._begin(item)
            self._emit("response.content_part.added", item, content_index=0, part=item.part())
        item.texts.append(text)
        if logprobs is not None and (said := bytes(logprobs)[1:-1]):
            item.logprobs.append(said)
        if text or logprobs is not None:
            said_now = [] if logprobs is None else logprobs
            self._emit(
                "response.output_text.delta", item, content_index=0, delta=text, logprobs=said_now
            )

    def _add_call(self, call: ToolCall) -> None:
        if call.index != self._call or not isinstance(self._items[-1], FunctionCall):
            self._call = call.index
            item = FunctionCall(call.id or "", call.function.name or "")
            self._begin(item)
        else:
            item = self._items[-1]
        if call.function.arguments:
            item.parts.append(call.function.arguments)
            self._emit(
                "response.function_call_arguments.delta", item, delta=call.function.arguments
            )

    def _begin(self, item: Item) -> None:
        if self._items:
            self._end_item("completed")
        self._items.append(item)
        self._emit(
            "response.output_item.added", output_index=len(self._items) - 1, item=item.added()
        )

    def _end_item(self, status: str) -> None:
        """Finish the item that grows."""
        item = self._items[-1]
        item.status = status
        if isinstance(item, Message):
            part = item.part()
            told = {"text": part["text"], "logprobs": part["logprobs"]}
            self._emit("response.output_text.done", item, content_index=0, **told)
            self._emit("response.content_part.done", item, content_index=0, part=part)
        else:
            told = {"name": item.name, "arguments": item.arguments}
            self._emit("response.function_call_arguments.done", item, **told)
        self._emit("response.output_item.done", output_index=len(self._items) - 1, item=item.done())

    def _emit(self, kind: str, of: Item | None = None, **fields: Any) -> None:
        """Add an event, if the answer is a stream."""
        if not self._streams:
            return
        head: Fields = {"type": kind, "sequence_number": self._number}
        if of is not None:
            head |= {"item_id": of.id, "output_index": len(self._items) - 1}
        self._number += 1
        self._events.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), encoded(head | fields)))

    def _taken(self) -> bytes:
        events, self._events = self._events, []
        return b"".join(events)

    def _status(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _output(self) -> list[Fields]:
        return [item.done() for item in self._items]

    def _response(
        self, status: str, output: list[Fields] | None = None, error: Fields | None = None
    ) -> Fields:
        """Return the response; its last field is the output."""
        is_complete = status == "completed"
        reason = {"reason": "max_output_tokens"}
        return {
            "id": self._id,
            "object": "response",
            "status": status,
            "error": error,
            "incomplete_details": reason if status == "incomplete" else None,
            "completed_at": int(self._clock.now().timestamp()) if is_complete else None,
            **self._shown,
            "usage": None if self._usage is None else _usage(self._usage),
            "output": output or [],
        }


def _shown(ask: Ask, created_at: int) -> Fields:
    """Return the fields of a response that are known from the beginning."""
    assert ask.response is not None, "it is a request of the Responses API"
    return {
        "created_at": created_at,
        "model": ask.model,
        "background": False,
        "max_tool_calls": None,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "truncation": "disabled",
        **ask.response,
    }


def _usage(usage: Usage) -> Fields:
    cached = usage.prompt_tokens_details.cached_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _pieces(item: Item) -> Iterator[bytes]:
    """Yield an item, its logprobs in the pieces that they came in."""
    if isinstance(item, FunctionCall):
        yield encoded(item.done())
        return
    part = item.part() | {"logprobs": []}
    yield encoded(item.done() | {"content": [part]})[: -len(b"]}]}")]
    for at, logprobs in enumerate(item.logprobs):
        yield b"," * bool(at)
        yield logprobs
    yield b"]}]}"
