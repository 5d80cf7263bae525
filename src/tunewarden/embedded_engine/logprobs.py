"""Logprobs of a response, encoded token by token, so that no response holds the event loop when it is complete.

A response of 16 choices with 20 alternatives a token names hundreds of thousands of tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from tunewarden.embedded_engine.sampling import Choice
from tunewarden.embedded_engine.sequences import Entry
from tunewarden.embedded_engine.text import piece_bytes

NAMES_KEPT = 32768

encoded = msgspec.json.encode


class TokenNames:
    """The tokens of one tokenizer as JSON: as text, and as OpenAI's objects."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.text = lru_cache(NAMES_KEPT)(self._text)
        self._opening = lru_cache(NAMES_KEPT)(self._opening_of)

    def with_logprob(self, token: int, logprob: float | None) -> bytes:
        """Return `{"token":…,"bytes":…,"logprob":…}` without the last brace."""
        return self._opening(token) + encoded(logprob)

    def _text(self, token: int) -> str:
        return str(self._tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False))

    def _opening_of(self, token: int) -> bytes:
        text = self._text(token)
        spelled = piece_bytes(str(self._tokenizer.convert_ids_to_tokens(token)), text)
        return encoded({"token": text, "bytes": spelled})[:-1] + b',"logprob":'


class ChatLogprobs:
    """The logprobs of one choice of a chat response."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._content: list[bytes] = []

    def add(self, entries: Iterable[Entry]) -> None:
        """Add tokens."""
        named = self._names.with_logprob
        for choice in (entry.choice for entry in entries):
            top = b"},".join(named(*one) for one in choice.top) + b"}" * bool(choice.top)
            token = named(choice.token, choice.logprob)
            self._content.append(b'%b,"top_logprobs":[%b]}' % (token, top))

    def pieces(self) -> Iterator[bytes]:
        """Yield the JSON object in pieces, one a token."""
        yield b'{"content":['
        yield from _separated(self._content)
        yield b'],"refusal":null}'


class CompletionLogprobs:
    """The logprobs of one choice of a text completion, whose text begins `before` characters after the echo's begin."""

    def __init__(self, names: TokenNames, before: int = 0) -> None:
        self._names = names
        self._before = before
        self._arrays: dict[bytes, list[bytes]] = {
            name: [] for name in (b"tokens", b"token_logprobs", b"top_logprobs", b"text_offset")
        }

    def add(self, entries: Iterable[Entry]) -> None:
        """Add tokens."""
        for entry in entries:
            self._add(entry.choice, self._before + entry.at)

    def add_prompt(self, choices: Iterable[Choice], at: int) -> int:
        """Add tokens of the prompt, of which the first begins at an offset; return the next one's offset."""
        for choice in choices:
            self._add(choice, at)
            at += len(self._names.text(choice.token))
        return at

    def _add(self, choice: Choice, at: int) -> None:
        tokens, logprobs, tops, offsets = self._arrays.values()
        text = self._names.text
        is_known = choice.logprob is not None  # not of the first token of a prompt
        tokens.append(encoded(text(choice.token)))
        logprobs.append(encoded(choice.logprob))
        tops.append(encoded({text(token): one for token, one in choice.top} if is_known else None))
        offsets.append(encoded(at))

    def pieces(self) -> Iterator[bytes]:
        """Yield the JSON object in pieces."""
        opening = b'{"%b":['
        for name, values in self._arrays.items():
            yield opening % name
            yield from _separated(values)
            opening = b'],"%b":['
        yield b"]}"


Logprobs = ChatLogprobs | CompletionLogprobs


def _separated(values: Sequence[bytes]) -> Iterator[bytes]:
    for at, value in enumerate(values):
        if at:
            yield b","
        yield value
