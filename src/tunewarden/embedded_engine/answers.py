"""OpenAI's response objects and stream chunks, for chat and for completions."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tunewarden.clock import Clock
from tunewarden.embedded_engine.logprobs import (
    ChatLogprobs,
    CompletionLogprobs,
    Logprobs,
)
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.said import Completion, Message, Said, SaidSoFar
from tunewarden.embedded_engine.sequences import Delta, Finish
from tunewarden.embedded_engine.tool_calls import CallReader
from tunewarden.engine_protocol.messages import Problem, Refusal
from tunewarden.errors import Error, Kind
from tunewarden.ids import Prefix, mint

FINGERPRINT = "fp_embedded"
DONE = b"data: [DONE]\n\n"
STATUSES = {
    Kind.INVALID: 400,
    Kind.NOT_FOUND: 404,
    Kind.TOO_LARGE: 413,
    Kind.RATE_LIMITED: 429,
    Kind.UNAVAILABLE: 503,
}


def status_of(error: Error) -> int:
    """Return the HTTP status of an error."""
    return STATUSES.get(error.kind, 500)


def refusal(error: Error) -> Refusal:
    """Return OpenAI's error object; all four keys are always there."""
    kind = "invalid_request_error" if status_of(error) < 500 else "server_error"
    return Refusal(Problem(error.message, kind, error.param, error.code))


def event(entry: dict[str, Any] | Refusal) -> bytes:
    """Return one server-sent event."""
    return b"data: " + msgspec.json.encode(entry) + b"\n\n"


class Answer:
    """Builds the response of one request, step by step: a stream's chunks, or one JSON object.

    No call takes long: what it does is bounded by the deltas that it is given.
    """

    def __init__(
        self, ask: Ask, prompts: Sequence[Sequence[int]], base: Base, clock: Clock
    ) -> None:
        self._ask = ask
        self._names = base.token_names
        self._tool_format = base.tool_format
        self._prompt_tokens = sum(len(ids) for ids in prompts)
        self._reused_tokens = 0
        self._said = 0
        self._echoes = _echoed(ask, prompts, base) if ask.echo else []
        self._count = len(prompts) * ask.choices
        # Made when they say something: a request may have 100,000.
        self._choices: dict[int, _Choice] = {}
        kind = "chat.completion" if ask.is_chat else "text_completion"
        self._head = {
            "id": mint(Prefix.CHAT_COMPLETION if ask.is_chat else Prefix.COMPLETION),
            "object": f"{kind}.chunk" if ask.is_chat and ask.stream else kind,
            "created": int(clock.now().timestamp()),
            "model": ask.model,
            "system_fingerprint": FINGERPRINT,
        }

    def opening(self) -> bytes:
        """Return the first chunks of a chat's stream: each choice's role."""
        if not self._ask.is_chat:
            return b""
        # An answer that may be a call has no content yet.
        role = {"role": "assistant", "content": None if self._ask.tools else ""}
        return b"".join(self._chunk(index, role) for index in range(self._count))

    def chunks(self, deltas: Iterable[Delta]) -> bytes:
        """Return the chunks for some deltas: text, then a separate chunk with the finish reason."""
        events = []
        for delta in deltas:
            is_first = delta.index not in self._choices
            choice = self._counted(delta)
            if is_first and choice.echo:
                events.append(self._chunk(delta.index, choice.echo))
            if delta.prompt:
                of_prompt = CompletionLogprobs(self._names)
                choice.at = of_prompt.add_prompt(delta.prompt, choice.at)
                events.append(self._chunk(delta.index, "", of_prompt))
            logprobs = self._no_logprobs(choice.echo) if delta.entries else None
            if logprobs is not None:
                logprobs.add(delta.entries)
            for said in choice.said.read(delta):
                events.append(self._chunk(delta.index, said, logprobs))
                logprobs = None
            if delta.finish is not None:
                nothing, finish = choice.said.nothing, choice.said.finish
                events.append(self._chunk(delta.index, nothing, finish=finish))
        return b"".join(events)

    def closing(self) -> bytes:
        """Return the end of a stream: the usage if requested, then `[DONE]`."""
        if not self._ask.include_usage:
            return DONE
        return event({**self._head, "choices": [], "usage": self._usage()}) + DONE

    def failed(self, error: Error) -> bytes:
        """Return the end of a stream that an error cuts."""
        return event(refusal(error))

    def add(self, deltas: Iterable[Delta]) -> None:
        """Add some deltas to a response that is not streamed."""
        for delta in deltas:
            choice = self._counted(delta)
            choice.said.read(delta)
            if isinstance(choice.logprobs, CompletionLogprobs):
                choice.at = choice.logprobs.add_prompt(delta.prompt, choice.at)
            if choice.logprobs is not None:
                choice.logprobs.add(delta.entries)

    def whole(self) -> Iterator[bytes]:
        """Yield the JSON body of a response that is not streamed, in small pieces."""
        yield msgspec.json.encode({**self._head, "usage": self._usage()})[:-1]
        opening = b',"choices":['
        for index in range(self._count):
            choice = self._choices[index]
            yield opening
            said = choice.said
            fields = {"index": index, **said.whole(), "finish_reason": said.finish}
            yield msgspec.json.encode(fields)[:-1] + b',"logprobs":'
            yield from (b"null",) if choice.logprobs is None else choice.logprobs.pieces()
            opening = b"},"
        yield b"}]}"

    def _chunk(
        self,
        index: int,
        said: Said,
        logprobs: Logprobs | None = None,
        finish: Finish | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            ("delta" if self._ask.is_chat else "text"): said,
            "logprobs": logprobs and msgspec.Raw(b"".join(logprobs.pieces())),
            "finish_reason": finish,
        }
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._ask.usage_in_chunks:
            chunk["usage"] = self._usage()
        elif self._ask.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _counted(self, delta: Delta) -> "_Choice":
        choice = self._choices.get(delta.index)
        if choice is None:
            echo = self._echoes[delta.index // self._ask.choices] if self._echoes else ""
            said: SaidSoFar
            if self._ask.is_chat:
                said = Message(self._reader())
            else:
                said = Completion(echo, is_streamed=self._ask.stream)
            choice = self._choices[delta.index] = _Choice(echo, said, self._no_logprobs(echo))
            self._reused_tokens += delta.reused
        self._said += delta.tokens - choice.tokens
        choice.tokens = delta.tokens
        return choice

    def _reader(self) -> CallReader | None:
        """Return what finds calls in a choice, or None if nothing is one."""
        tools = self._ask.tools
        if tools is None or self._tool_format is None:
            return None
        return CallReader(
            self._tool_format,
            tools.names,
            takes_one=not tools.is_parallel,
            is_forced=tools.is_forced,
        )

    def _usage(self) -> dict[str, Any]:
        usage = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._said,
            "total_tokens": self._prompt_tokens + self._said,
        }
        if self._ask.response is None:
            return usage
        return {**usage, "prompt_tokens_details": {"cached_tokens": self._reused_tokens}}

    def _no_logprobs(self, echo: str) -> Logprobs | None:
        """Return an empty collection, or None if the client wants none."""
        if self._ask.sampling.top_logprobs is None:
            return None
        if self._ask.is_chat:
            return ChatLogprobs(self._names)
        return CompletionLogprobs(self._names, len(echo))


class _Choice:
    """What one choice has said so far."""

    __slots__ = ("at", "echo", "logprobs", "said", "tokens")

    def __init__(self, echo: str, said: SaidSoFar, logprobs: Logprobs | None) -> None:
        self.echo = echo
        # Where the next token of the prompt begins.
        self.at = 0
        self.said = said
        self.logprobs = logprobs
        self.tokens = 0


def _echoed(ask: Ask, prompts: Sequence[Sequence[int]], base: Base) -> list[str]:
    """Return each prompt's text. Token ids are decoded, which is slow for long prompts."""
    return [
        given if isinstance(given, str) else base.decode_long(ids)
        for given, ids in zip(ask.prompts or [], prompts, strict=True)
    ]
