"""OpenAI's response objects and stream chunks, for chat and for completions."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tunewarden.clock import Clock
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.sequences import Delta, Entry, Finish
from tunewarden.embedded_engine.text import piece_bytes
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
    """Builds the response of one request. `tokenizer` names tokens for logprobs."""

    def __init__(
        self, ask: Ask, prompts: Sequence[Sequence[int]], tokenizer: Any, clock: Clock
    ) -> None:
        self._ask = ask
        self._tokenizer = tokenizer
        self._count = len(prompts) * ask.choices
        self._prompt_tokens = sum(len(ids) for ids in prompts)
        self._tokens = [0] * self._count
        self._echoes = self._echoed(prompts) if ask.echo else [""] * self._count
        kind = "chat.completion" if ask.is_chat else "text_completion"
        self._head = {
            "id": mint(Prefix.CHAT_COMPLETION if ask.is_chat else Prefix.COMPLETION),
            "object": f"{kind}.chunk" if ask.is_chat and ask.stream else kind,
            "created": int(clock.now().timestamp()),
            "model": ask.model,
            "system_fingerprint": FINGERPRINT,
        }

    def opening(self) -> bytes:
        """Return the first chunks of a stream: each choice's role, or its echoed prompt."""
        chunks = []
        for index, echo in enumerate(self._echoes):
            if self._ask.is_chat:
                chunks.append(self._chunk(index, {"role": "assistant", "content": ""}, [], None))
            elif echo:
                chunks.append(self._chunk(index, echo, [], None))
        return b"".join(chunks)

    def chunks(self, deltas: Iterable[Delta]) -> bytes:
        """Return the chunks for one step's deltas: text, then a separate chunk with the finish reason."""
        events = []
        for delta in deltas:
            self._tokens[delta.index] = delta.tokens
            if delta.text or delta.entries:
                text = {"content": delta.text} if self._ask.is_chat else delta.text
                events.append(self._chunk(delta.index, text, delta.entries, None))
            if delta.finish is not None:
                nothing: dict[str, str] | str = {} if self._ask.is_chat else ""
                events.append(self._chunk(delta.index, nothing, [], delta.finish))
        return b"".join(events)

    def closing(self) -> bytes:
        """Return the end of a stream: the usage if requested, then `[DONE]`."""
        if not self._ask.include_usage:
            return DONE
        return event({**self._head, "choices": [], "usage": self._usage()}) + DONE

    def whole(self, deltas: Iterable[Delta]) -> bytes:
        """Return the JSON body of a response that is not streamed, from all its deltas."""
        texts = [[echo] for echo in self._echoes]
        entries: list[list[Entry]] = [[] for _ in texts]
        finishes: list[Finish | None] = [None for _ in texts]
        for delta in deltas:
            texts[delta.index].append(delta.text)
            entries[delta.index] += delta.entries
            finishes[delta.index] = delta.finish
            self._tokens[delta.index] = delta.tokens
        choices = []
        for index, parts in enumerate(texts):
            text = "".join(parts)
            said: dict[str, Any] = {"text": text}
            if self._ask.is_chat:
                message: dict[str, Any] = {
                    "role": "assistant",
                    "content": text,
                    "refusal": None,
                    "annotations": [],
                }
                said = {"message": message}
            choices.append(
                {
                    "index": index,
                    **said,
                    "logprobs": self._logprobs(entries[index]),
                    "finish_reason": finishes[index],
                }
            )
        return msgspec.json.encode({**self._head, "choices": choices, "usage": self._usage()})

    def _chunk(
        self,
        index: int,
        said: dict[str, str] | str,
        entries: Sequence[Entry],
        finish: Finish | None,
    ) -> bytes:
        choice = {
            "index": index,
            ("delta" if self._ask.is_chat else "text"): said,
            "logprobs": self._logprobs(entries) if entries else None,
            "finish_reason": finish,
        }
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._ask.include_usage:
            chunk["usage"] = None
        return event(chunk)

    def _usage(self) -> dict[str, int]:
        said = sum(self._tokens)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": said,
            "total_tokens": self._prompt_tokens + said,
        }

    def _echoed(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        texts = [
            given if isinstance(given, str) else str(self._tokenizer.decode(ids))
            for given, ids in zip(self._ask.prompts or [], prompts, strict=True)
        ]
        return [text for text in texts for _ in range(self._ask.choices)]

    def _logprobs(self, entries: Sequence[Entry]) -> dict[str, Any] | None:
        if self._ask.sampling.top_logprobs is None:
            return None
        if self._ask.is_chat:
            content = [
                {
                    **self._named(entry.choice.token, entry.choice.logprob),
                    "top_logprobs": [self._named(*one) for one in entry.choice.top],
                }
                for entry in entries
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [self._text(entry.choice.token) for entry in entries],
            "token_logprobs": [entry.choice.logprob for entry in entries],
            "top_logprobs": [
                {self._text(token): logprob for token, logprob in entry.choice.top}
                for entry in entries
            ],
            "text_offset": [entry.at for entry in entries],
        }

    def _named(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._text(token)
        piece = str(self._tokenizer.convert_ids_to_tokens(token))
        return {"token": text, "logprob": logprob, "bytes": piece_bytes(piece, text)}

    def _text(self, token: int) -> str:
        return str(self._tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False))
