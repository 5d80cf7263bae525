"""The items of a response's output, as they grow."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunewarden.ids import Prefix, mint

# An event of a stream with longer logprobs has none: they have been sent with the text's parts.
LOGPROBS_BYTES_MAX = 1024 * 1024

Fields = dict[str, Any]


@dataclass(slots=True)
class Message:
    """A text. `logprobs` are JSON, several objects each."""

    id: str = field(default_factory=lambda: mint(Prefix.MESSAGE))
    status: str = "in_progress"
    texts: list[str] = field(default_factory=list)
    logprobs: list[bytes] = field(default_factory=list)

    def added(self) -> Fields:
        """Return the item as it begins."""
        return self._with([])

    def done(self) -> Fields:
        """Return the item as it is now."""
        return self._with([self.part()])

    def part(self) -> Fields:
        """Return its one part."""
        text = "".join(self.texts)
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": self.logprobs_of_event(),
        }

    def logprobs_of_event(self) -> msgspec.Raw:
        """Return all logprobs, or none if they are too long for an event."""
        size = sum(map(len, self.logprobs))
        kept = self.logprobs if size <= LOGPROBS_BYTES_MAX else []
        return msgspec.Raw(b"[%b]" % b",".join(kept))

    def _with(self, content: list[Fields]) -> Fields:
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": content,
        }


@dataclass(slots=True)
class FunctionCall:
    """A call. `call_id` is how its output names it."""

    call_id: str
    name: str
    id: str = field(default_factory=lambda: mint(Prefix.FUNCTION_CALL))
    status: str = "in_progress"
    parts: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        """Return the arguments so far, JSON in the end."""
        return "".join(self.parts)

    def added(self) -> Fields:
        """Return the item as it begins."""
        return self._with("")

    def done(self) -> Fields:
        """Return the item as it is now."""
        return self._with(self.arguments)

    def _with(self, arguments: str) -> Fields:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": arguments,
        }


Item = Message | FunctionCall
