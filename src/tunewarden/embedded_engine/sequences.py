"""One sequence being decoded, and the deltas sent to the client after each decode step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch

from tunewarden.embedded_engine.constraints import Matcher
from tunewarden.embedded_engine.sampling import Choice, Chooser, Sampling, reported
from tunewarden.embedded_engine.text import Detokenizer, StopText
from tunewarden.errors import Error

PROMPT_TOKENS_AT_ONCE = 256


class Finish(StrEnum):
    """Why a sequence ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Entry:
    """A token with its logprobs; `at` is the offset of its text, in characters."""

    choice: Choice
    at: int


@dataclass(frozen=True, slots=True)
class Delta:
    """One step's addition to one sequence. `tokens` counts all tokens of the sequence so far.

    `prompt` is a part of the prompt with its logprobs, if they are wanted, before anything that is said. `reused` counts
    the prompt's tokens that were computed before.
    """

    index: int
    text: str
    entries: Sequence[Entry]
    tokens: int
    finish: Finish | None
    prompt: Sequence[Choice] = ()
    reused: int = 0


class Receiver(Protocol):
    """Receives the deltas of one request; called on the event loop."""

    def receive(self, news: Delta | Error) -> None:
        """Receive one step's delta; an Error is the last call."""


@dataclass(frozen=True, slots=True)
class Ending:
    """When a sequence ends: a token limit, end tokens, stop strings."""

    tokens_max: int
    end_tokens: frozenset[int]
    stops: Sequence[str]


class Row:
    """One sequence: its prompt, its adapter, and its decoding state.

    `adapter` is None for the base. `asked_by`, an organization, bounds whose prompts it may reuse, and rows are
    shared between organizations. `index` is its place among the choices of its request. `is_extra`: it runs beside a
    full batch and takes no place in it (waiting.py).
    """

    def __init__(
        self,
        *,
        receiver: Receiver,
        adapter: str | None,
        asked_by: str,
        index: int,
        prompt: Sequence[int],
        sampling: Sampling,
        ending: Ending,
        decode: Callable[[Sequence[int]], str],
        reports_prompt: bool = False,
        matcher: Matcher | None = None,
    ) -> None:
        self.receiver = receiver
        self.adapter = adapter
        self.asked_by = asked_by
        self.prompt = prompt
        self.matcher = matcher
        self.chooser = Chooser(sampling, index, prompt, ending.end_tokens, matcher)
        self.last = prompt[-1]
        self.length = len(prompt)
        self.reports_prompt = reports_prompt
        self.tokens_reused = 0
        self.is_extra = False
        self._index = index
        self._ending = ending
        self._tokens_min = sampling.min_tokens
        self._reports = sampling.top_logprobs is not None
        self._text = Detokenizer(decode)
        self._stop = StopText(ending.stops)
        self._tokens = 0
        self._decoded = 0
        self._released = 0
        self._entries: list[Entry] = []
        self._read: list[Choice] = []

    def note_prompt(self, logits: torch.Tensor, first: int) -> None:
        """Note the logprobs of a part of the prompt. `logits` [columns, vocabulary]: `first` is where it begins.

        Columns before the prompt are padding. The prompt may be read again from its begin.
        """
        begin = max(first, 0)
        tokens = self.prompt[begin + 1 : first + len(logits) + 1]
        if begin == 0:
            self._read = [Choice(self.prompt[0])]
        at = begin - first
        self._read += reported(logits[at : at + len(tokens)], tokens, self.chooser.sampling)

    def prompt_read(self) -> Iterator[Delta]:
        """Yield the prompt's logprobs, once, in parts that take the event loop no long turn."""
        read, self._read = self._read, []
        for at in range(0, len(read), PROMPT_TOKENS_AT_ONCE):
            yield Delta(self._index, "", (), 0, None, read[at : at + PROMPT_TOKENS_AT_ONCE])

    def take(self, choice: Choice) -> Delta | None:
        """Add a token; return what may be sent now, or None if all is held back."""
        if not self._ending.tokens_max:
            return self._finish(Finish.LENGTH)
        if choice.token in self._ending.end_tokens:
            return self._finish(Finish.STOP)
        self.last = choice.token
        self.length += 1
        self._tokens += 1
        if self._reports:
            self._entries.append(Entry(choice, self._decoded))
        new = self._text.push(choice.token)
        self._decoded += len(new)
        text = new if self._tokens <= self._tokens_min else self._stop.push(new)
        if self._stop.is_found:
            return self._delta(text, Finish.STOP, upto=self._released + len(text))
        finish = self._finish_after_token()
        if finish is not None:
            return self._finish(finish, text)
        if not text:
            return None
        return self._delta(text, None, upto=self._released + len(text))

    def _finish_after_token(self) -> Finish | None:
        if self.matcher is not None and self.matcher.is_complete:
            return Finish.STOP
        return Finish.LENGTH if self._tokens >= self._ending.tokens_max else None

    def _finish(self, finish: Finish, text: str = "") -> Delta:
        """Release all held-back text: it became neither a character nor a stop string."""
        text += self._stop.push(self._text.flush())
        if not self._stop.is_found:
            return self._delta(text + self._stop.flush(), finish, upto=None)
        return self._delta(text, Finish.STOP, upto=self._released + len(text))

    def _delta(self, text: str, finish: Finish | None, *, upto: int | None) -> Delta:
        """Return the text with the entries that begin before `upto`; all of them if it is None."""
        ready = [entry for entry in self._entries if upto is None or entry.at < upto]
        self._entries = self._entries[len(ready) :]
        self._released += len(text)
        reused = self.tokens_reused
        return Delta(self._index, text, ready, self._tokens, finish, reused=reused)
