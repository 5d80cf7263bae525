"""Reads JSON Lines from a pipe and tokenizes them. No text is kept."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunewarden.trainer.chats import BadExample, BadTemplate, Chats, Messages, Row
from tunewarden.trainer.failures import Failure
from tunewarden.trainer.messages import File, Method, Tokens

# One example: its rows are learned together. For `dpo`: the preferred answer's, then the other's.
Example = tuple[Row, ...]
LINES_NAMED_MAX = 20
UTF8_MARK = b"\xef\xbb\xbf"


class _Chat(msgspec.Struct):
    """The fields of the chat format that are used here."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None

    def all_tools(self) -> list[dict[str, Any]] | None:
        """Return the tools, the older `functions` among them."""
        older = [{"type": "function", "function": one} for one in self.functions or ()]
        return [*(self.tools or ()), *older] or None


class _Preference(msgspec.Struct):
    """The preference format."""

    input: _Chat
    preferred_output: list[dict[str, Any]]
    non_preferred_output: list[dict[str, Any]]


@dataclass
class Dataset:
    """The examples of one file, and their counts."""

    file: File
    examples: list[Example] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)

    def tokens(self) -> Tokens:
        """Return the counts as a message."""
        rows = [row for example in self.examples for row in example]
        return Tokens(
            self.file,
            len(self.examples),
            sum(len(row.ids) for row in rows),
            sum(row.learned for row in rows),
            tuple(self.truncated[:LINES_NAMED_MAX]),
            len(self.truncated),
        )


def read(descriptor: int, file: File, method: Method, chats: Chats, context: int) -> Dataset:
    """Read a file to its end and close it. Rows are at most `context` tokens long.

    Raises Failure, which names the line.
    """
    dataset = Dataset(file)
    for number, line in _lines(descriptor):
        try:
            rows = _supervised(line, chats) if method == "supervised" else _dpo(line, chats)
        except BadExample as problem:
            raise _invalid(file, f"Line {number} of the {file} file {problem}.") from None
        except BadTemplate as problem:
            raise Failure("unsupported_chat_template", str(problem)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = f"Line {number} of the {file} file is not an example of the method {method}."
            raise _invalid(file, message) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"Line {number} of the {file} file has a message that cannot be read."
            raise _invalid(file, message) from error
        cut = tuple(row.truncated(context) for row in rows)
        if any(len(row.ids) > context for row in rows):
            dataset.truncated.append(number)
        if method == "supervised":
            cut = tuple(row for row in cut if row.spans)
        if cut and all(row.spans for row in cut):
            dataset.examples.append(cut)
    if not dataset.examples:
        raise _invalid(
            file,
            f"The {file} file has no example whose answer begins within the base model's context of"
            f" {context} tokens. Make the examples shorter.",
        )
    return dataset


def _lines(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not blank, with its number from 1."""
    with os.fdopen(descriptor, "rb") as pipe:
        for number, line in enumerate(pipe, 1):
            text = line.removeprefix(UTF8_MARK) if number == 1 else line
            if text.strip():
                yield number, text


def _supervised(line: bytes, chats: Chats) -> list[Row]:
    example = msgspec.json.decode(line, type=_Chat)
    return chats.rows(example.messages, example.all_tools())


def _dpo(line: bytes, chats: Chats) -> list[Row]:
    example = msgspec.json.decode(line, type=_Preference)
    asked, tools = example.input.messages, example.input.all_tools()
    return [
        _answered(chats, asked, output, tools)
        for output in (example.preferred_output, example.non_preferred_output)
    ]


def _answered(chats: Chats, asked: Messages, output: Messages, tools: list[Any] | None) -> Row:
    if len(output) != 1:
        raise BadExample("must have one message in each of its outputs")
    (row,) = chats.rows([*asked, *output], tools, first=len(asked))
    return row


def _invalid(file: File, message: str) -> Failure:
    return Failure(f"invalid_{file}_file", message, f"{file}_file")
