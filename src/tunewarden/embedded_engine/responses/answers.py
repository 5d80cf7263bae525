"""The answer of one request of the Responses API: a chat's answer, translated."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tunewarden.clock import Clock
from tunewarden.embedded_engine.answers import Answer
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.requests import Ask
from tunewarden.embedded_engine.responses.translation import Translation
from tunewarden.embedded_engine.sequences import Delta
from tunewarden.errors import Error


class ResponseAnswer:
    """Builds the answer step by step, as `Answer` does."""

    def __init__(
        self, ask: Ask, prompts: Sequence[Sequence[int]], base: Base, clock: Clock
    ) -> None:
        self._chat = Answer(replace(ask, stream=True, include_usage=True), prompts, base, clock)
        self._response = Translation(ask, clock)

    def opening(self) -> bytes:
        """Return the first events."""
        self._chat.opening()
        return self._response.opening()

    def chunks(self, deltas: Iterable[Delta]) -> bytes:
        """Return the events for some deltas."""
        return self._response.read(self._chat.chunks(deltas))

    def closing(self) -> bytes:
        """Return the end of a stream."""
        return self._response.read(self._chat.closing()) + self._response.closing()

    def failed(self, error: Error) -> bytes:
        """Return the end of a stream that an error cuts."""
        return self._response.failed(error)

    def add(self, deltas: Iterable[Delta]) -> None:
        """Add some deltas to an answer that is not streamed."""
        self.chunks(deltas)

    def whole(self) -> Iterator[bytes]:
        """Yield the JSON body of an answer that is not streamed, in small pieces."""
        self._response.read(self._chat.closing())
        yield from self._response.whole()
