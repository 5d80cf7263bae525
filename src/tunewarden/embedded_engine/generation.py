"""One request in flight, between the step thread and its connection."""

import asyncio

from tunewarden.embedded_engine import prompts
from tunewarden.embedded_engine.constraints import Matcher
from tunewarden.embedded_engine.engine import Served, of_request
from tunewarden.embedded_engine.queued import TOKENS_BESIDE, Queued
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.sequences import Delta, Ending, Row
from tunewarden.errors import Error

# Deltas that one turn of the event loop takes: in tokens named, alternatives included.
NAMES_AT_ONCE = 2048
# A delta takes as long as so many names, beside those in it: it is three chunks of a stream at most.
NAMES_OF_DELTA = 12
# What a row may say counts for no more than that in the queue: few say as much as they may.
SAID_TOKENS = 1024


class Abandoned(Exception):
    """The client has disconnected."""


class Generation:
    """The sequences of one request. Used on the event loop; the step loop's Receiver."""

    def __init__(self, ask: Ask, served: Served, adapter: str | None, asked_by: str = "") -> None:
        self.ask = ask
        self.base = served.base
        self.prompts: list[list[int]] = []
        self._served = served
        self._adapter = adapter
        self.asked_by = asked_by
        self._matcher: Matcher | None = None
        self._names_of_entry = 1 + (ask.sampling.top_logprobs or 0)
        self._unfinished = 0
        self._deltas: list[Delta] = []
        self._end: Error | Abandoned | None = None
        self._news = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        """Return whether every sequence has ended by itself and was read."""
        return self._unfinished == 0 and not self._deltas

    def encode(self) -> None:
        """Tokenize the prompts; slow for long ones. Raises Error(INVALID)."""
        self.prompts = prompts.encode(self.ask, self.base)

    def hold(self) -> None:
        """Compile what every choice must look like, if anything; slow. Raises Error(INVALID)."""
        constraint = answer = self.ask.constraint
        if self.ask.tools is not None:
            constraint = self.base.tool_constraint(self.ask.tools, answer)
            if answer is not None and constraint is not answer:
                self.base.compile(answer, self.asked_by)  # so that its errors are about it
        if constraint is not None:
            self._matcher = self.base.compile(constraint, self.asked_by)

    def start(self) -> None:
        """Queue the request. Raises Error(UNAVAILABLE)."""
        choices = self.ask.choices
        rows = (
            self._row(ids, number * choices + choice)
            for number, ids in enumerate(self.prompts)
            for choice in range(choices)
        )
        self._unfinished = len(self.prompts) * choices
        tokens = TOKENS_BESIDE + sum(
            len(ids) + choices * min(self._tokens_max(ids), SAID_TOKENS) for ids in self.prompts
        )
        self._served.steps.submit(
            Queued(
                rows,
                receiver=self,
                adapter=self._adapter,
                asked_by=self.asked_by,
                count=self._unfinished,
                tokens=tokens,
            )
        )

    def _tokens_max(self, prompt: list[int]) -> int:
        return prompts.tokens_max(self.ask, self.base, len(prompt))

    def _row(self, prompt: list[int], index: int) -> Row:
        ends = frozenset() if self.ask.ignore_eos else self.base.end_tokens
        tokens_max = self._tokens_max(prompt)
        return Row(
            receiver=self,
            adapter=self._adapter,
            asked_by=self.asked_by,
            index=index,
            prompt=prompt,
            sampling=self.ask.sampling,
            ending=Ending(tokens_max, ends.union(self.ask.stop_tokens), self.ask.stops),
            decode=self.base.decode if self.ask.tools is None else self.base.decode_with_calls,
            reports_prompt=self.ask.reports_prompt,
            matcher=None if self._matcher is None else self._matcher.copy(tokens_max),
        )

    def receive(self, news: Delta | Error) -> None:
        """Receive one step's delta. An Error also discards unread ones (I2)."""
        if self._end is not None:
            return
        if isinstance(news, Error):
            self._deltas.clear()
            self._end = news
        else:
            self._deltas.append(news)
            if news.finish is not None:
                self._unfinished -= 1
        self._news.set()

    def abandon(self) -> None:
        """Abort: the client has disconnected."""
        if self._end is None:
            self._end = Abandoned()
            self._deltas.clear()
            self._news.set()

    async def next(self) -> list[Delta]:
        """Wait for deltas; return those since the last call, or the first of them if they are many.

        Raises the step loop's Error, Abandoned.
        """
        if self._deltas:
            await asyncio.sleep(0)  # Other requests take turns with what has piled up here.
        await self._news.wait()
        if self._end is not None:
            raise self._end
        taken, names = 0, 0
        while taken < len(self._deltas) and names < NAMES_AT_ONCE:
            delta = self._deltas[taken]
            entries = len(delta.entries) + len(delta.prompt)
            names += NAMES_OF_DELTA + entries * self._names_of_entry
            if self.ask.tools is not None:
                names += delta.tokens  # it may complete a call, which is parsed then
            taken += 1
        deltas, self._deltas = self._deltas[:taken], self._deltas[taken:]
        if not self._deltas:
            self._news.clear()
        return deltas

    def close(self) -> None:
        """Drop the request from the step loop if it has not ended by itself."""
        if self._unfinished and not isinstance(self._end, Error):
            steps = self._served.steps
            steps.between_steps(lambda: steps.drop(of_request(self), None))
