"""What one choice has said: a completion's text, or a chat's message with its calls of tools."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from tunewarden.embedded_engine.sequences import Delta, Finish
from tunewarden.embedded_engine.tool_calls import Call, CallReader, Piece
from tunewarden.ids import Prefix, mint

# Longer arguments are sent in several deltas.
ARGUMENTS_CHARACTERS = 4096

# What a chunk of a stream says: a chat's delta, or text.
Said = dict[str, Any] | str


class SaidSoFar(Protocol):
    """What one choice has said so far."""

    nothing: ClassVar[Said]
    finish: Finish | None

    def read(self, delta: Delta) -> Sequence[Said]:
        """Add a delta; return what chunks say of it."""

    def whole(self) -> dict[str, Any]:
        """Return the choice's fields in a response that is not streamed."""


class Completion:
    """The text of a completion, behind the echo of its prompt; it is kept unless it is streamed."""

    __slots__ = ("_texts", "finish")
    nothing: ClassVar[Said] = ""

    def __init__(self, echo: str, *, is_streamed: bool) -> None:
        self.finish: Finish | None = None
        # A request may have 32,768 choices, and each list of theirs is more work for the garbage collector.
        self._texts = None if is_streamed else [echo]

    def read(self, delta: Delta) -> Sequence[Said]:
        """Add a delta; return its text."""
        if self._texts is not None:
            self._texts.append(delta.text)
        self.finish = delta.finish
        return [delta.text] if delta.text or delta.entries else []

    def whole(self) -> dict[str, Any]:
        """Return the text."""
        return {"text": "".join(self._texts or ())}


class Message:
    """A chat's message. Without a reader nothing in it is a call."""

    __slots__ = ("_calls", "_reader", "_texts", "finish")
    nothing: ClassVar[Said] = {}

    def __init__(self, reader: CallReader | None) -> None:
        self.finish: Finish | None = None
        self._reader = reader
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []

    def read(self, delta: Delta) -> Sequence[Said]:
        """Add a delta; return the deltas of chunks, as OpenAI sends them."""
        self.finish = delta.finish
        if self._reader is None:
            self._texts.append(delta.text)
            return [{"content": delta.text}] if delta.text or delta.entries else []
        pieces = self._reader.push(delta.text)
        if delta.finish is not None:
            pieces += self._reader.flush()
            if self._reader.calls and delta.finish is Finish.STOP:
                self.finish = Finish.TOOL_CALLS
        said: list[Said] = [one for piece in pieces for one in self._added(piece)]
        return said or ([{}] if delta.entries else [])

    def _added(self, piece: Piece) -> list[dict[str, Any]]:
        if not isinstance(piece, Call):
            self._texts.append(piece)
            return [{"content": piece}]
        index = len(self._calls)
        call = {"id": mint(Prefix.TOOL_CALL), "type": "function"}
        self._calls.append({**call, "function": {"name": piece.name, "arguments": piece.arguments}})
        begin = {"index": index, **call, "function": {"name": piece.name, "arguments": ""}}
        parts = [
            {"index": index, "function": {"arguments": piece.arguments[at:][:ARGUMENTS_CHARACTERS]}}
            for at in range(0, len(piece.arguments), ARGUMENTS_CHARACTERS)
        ]
        return [{"tool_calls": [one]} for one in (begin, *parts)]

    def whole(self) -> dict[str, Any]:
        """Return the message."""
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        message["annotations"] = []
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = self._calls
        return {"message": message}
