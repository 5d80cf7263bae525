"""What a model is asked, from training data: the messages before the answer that the data has. Pure."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
# What stands beside the messages of an example and belongs to the question.
OPTIONS = ("tools", "functions", "parallel_tool_calls", "tool_choice", "response_format")
BYTES_PER_TOKEN = 4
MARK = b"\xef\xbb\xbf"  # of UTF-8, at the beginning of a file


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question: the line of its file, from 1, and the fields of a chat completion but the model.

    The sizes are of the question and of the answer that the data has, in bytes of JSON.
    """

    line: int
    fields: Object
    bytes: int
    answer_bytes: int

    def tokens(self, answer_tokens_max: int) -> int:
        """Return about how many tokens asking it takes, the answer's included."""
        answer = self.answer_bytes // BYTES_PER_TOKEN or answer_tokens_max // 2
        return self.bytes // BYTES_PER_TOKEN + min(answer, answer_tokens_max)


class Tail:
    """The questions of the last examples of a file that comes piece by piece; lines that have none are left out."""

    def __init__(self, last: int) -> None:
        self._found: deque[Prompt] = deque(maxlen=last)
        self._lines = 0
        self._begun: list[bytes] = []  # the line that is not whole yet

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        *whole, rest = piece.split(b"\n")
        for line in whole:
            self._take(line)
        self._begun.append(rest)

    def end(self) -> list[Prompt]:
        """Return the questions, in the order of the file."""
        self._take(b"")
        return list(self._found)

    def _take(self, end_of_line: bytes) -> None:
        line = b"".join([*self._begun, end_of_line])
        self._begun.clear()
        self._lines += 1
        prompt = _prompt(self._lines, line.removeprefix(MARK) if self._lines == 1 else line)
        if prompt is not None:
            self._found.append(prompt)


def read(content: bytes, *, last: int) -> list[Prompt]:
    """Return the questions of the last `last` examples, in their order."""
    tail = Tail(last)
    tail.feed(content)
    return tail.end()


def _prompt(number: int, line: bytes) -> Prompt | None:
    try:
        example = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(example, dict):
        return None
    given = example.get("input") if "preferred_output" in example else example
    if not isinstance(given, dict):
        return None
    messages = given.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        return None
    answer = example.get("preferred_output")
    if answer is None and messages and messages[-1].get("role") == "assistant":
        messages, answer = messages[:-1], messages[-1]
    if not messages:
        return None
    fields = {"messages": [_asked(one) for one in messages]}
    fields |= {name: given[name] for name in OPTIONS if given.get(name) is not None}
    return Prompt(number, fields, _size(fields), _size(answer) if answer is not None else 0)


def _asked(message: Mapping[str, Any]) -> Object:
    """Return a message without what is for training alone."""
    return {name: value for name, value in message.items() if name != "weight"}


def _size(value: object) -> int:
    # Half a surrogate pair, of an emoji that was cut, is legal in JSON.
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
