"""Tokenizes chats, and marks the tokens to train on: the assistant's only.

A base's chat template renders a chat, but does not mark which parts are the
assistant's. They are found by rendering the chat up to an answer, as it is rendered for the model
for inference, and again with the answer: the difference is the answer, with its end token.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden.chat_templates import TEMPLATE_ERRORS, render, template_message

Messages = Sequence[dict[str, Any]]
Span = tuple[int, int]


class BadExample(Exception):
    """An example that cannot be trained on. The text ends a sentence that begins with "Line 3"."""


class BadTemplate(Exception):
    """The base's chat template cannot be used for training. The text is a full sentence."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of tokens; `spans` are the parts to learn, each [start, end), start at least 1."""

    ids: "array[int]"  # quoted: not subscriptable before Python 3.12
    spans: tuple[Span, ...]

    @property
    def learned(self) -> int:
        """The number of target tokens."""
        return sum(end - start for start, end in self.spans)

    def truncated(self, length: int) -> "Row":
        """Return the row without what is beyond `length` tokens, and only up to what is learned."""
        spans = tuple((start, min(end, length)) for start, end in self.spans if start < length)
        return Row(self.ids[: spans[-1][1] if spans else 0], spans)


class Chats:
    """Renders and encodes chats with a base's tokenizer (a fast one, of transformers)."""

    def __init__(self, tokenizer: Any) -> None:
        """Raises BadTemplate if the base has none."""
        if not tokenizer.chat_template:
            raise BadTemplate("The base model has no chat template, so it cannot learn chats.")
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}

    def rows(
        self, messages: Messages, tools: Sequence[Any] | None = None, *, first: int = 0
    ) -> list[Row]:
        """Return rows that together hold each answer to learn exactly once.

        Answers are the assistant's messages from number `first` on, but for those of weight 0. It is one
        row, unless the template renders an answer otherwise once the chat goes on (as those do that
        drop the thoughts of earlier turns): then it is one row an answer, each as it will be asked for.
        Raises BadExample, BadTemplate.
        """
        answers = [
            at
            for at, message in enumerate(messages)
            if at >= first and message["role"] == "assistant" and message.get("weight") != 0
        ]
        if not answers:
            raise BadExample("has no message of the assistant to learn from")
        plain = [_plain(message) for message in messages]
        found = [self._answer(plain, at, tools) for at in answers]
        whole = found[-1][0]
        if all(whole.startswith(text) for text, _ in found):
            return [self._encode(whole, [span for _, span in found])]
        return [self._encode(text, [span]) for text, span in found]

    def _answer(self, messages: Messages, at: int, tools: Sequence[Any] | None) -> tuple[str, Span]:
        """Return the chat up to and with an answer, and where in that text the answer is."""
        before = self._render(messages[:at], tools, is_asked=True)
        text = self._render(messages[: at + 1], tools, is_asked=False)
        if not text.startswith(before):
            raise BadTemplate(
                "The base model's chat template does not render an answer as the continuation of its"
                " prompt, so there is no telling what to learn. Choose another base model."
            )
        for call in messages[at].get("tool_calls") or ():
            if str(call["function"]["name"]) not in text[len(before) :]:
                raise BadTemplate(
                    "The base model's chat template leaves tool calls out. Choose another base model,"
                    " or examples without tool calls."
                )
        return text, (len(before), len(text))

    def _render(self, messages: Messages, tools: Sequence[Any] | None, *, is_asked: bool) -> str:
        try:
            text = render(
                self._tokenizer, messages, tools, tokenize=False, add_generation_prompt=is_asked
            )
        except TEMPLATE_ERRORS as error:
            message = "has messages that the base model's chat template does not accept"
            raise BadExample(f"{message} (their roles or their order, most likely)") from error
        return str(text)

    def _encode(self, text: str, parts: list[Span]) -> Row:
        """Return the tokens of a text, with the parts as spans of tokens."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        ids, places = encoding.ids, encoding.offsets
        spans = []
        for start, end in parts:
            inside = [
                at for at, place in enumerate(places) if place[1] > start and place[0] < end and at
            ]
            inside = self._without_tail(inside, ids, places, text[:end])
            if inside:
                spans.append((inside[0], inside[-1] + 1))
        if not spans:
            raise BadExample("has only empty answers")
        # What follows the last answer is never looked at.
        return Row(array("i", ids[: spans[-1][1]]), tuple(spans))

    def _without_tail(
        self, inside: list[int], ids: list[int], places: list[Span], text: str
    ) -> list[int]:
        """Leave out the white space that a template puts behind the token that ends an answer."""
        for count in range(len(inside), 0, -1):
            last = inside[count - 1]
            if text[places[last][1] :].strip():
                break
            if ids[last] in self._special:
                return inside[:count]
        return inside


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as templates want it, as the engine gives it to them when it is asked."""
    try:
        return template_message(
            {name: value for name, value in message.items() if name != "weight"}
        )
    except TypeError as error:
        raise BadExample("has a message whose content is no text") from error
