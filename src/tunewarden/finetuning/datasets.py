"""Validates training files: JSON Lines, as a stream, in constant memory.

A line's length is limited, and so are its values. Blank lines, CRLF and a byte order mark
are accepted; lines are counted from 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from tunewarden.finetuning import examples
from tunewarden.finetuning.examples import Problem
from tunewarden.finetuning.hyperparameters import Method

LINE_BYTES_MAX = 16 * 1024 * 1024
# A small text can need much memory: `{},` becomes 64 bytes. Prose has commas too, but fewer.
LINE_VALUES_MAX = 1_000_000
PROBLEMS_SHOWN = 5
EXAMPLES_MIN = {"training": 10, "validation": 1}
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Checked:
    """Counts of a valid file: examples, bytes, and characters of its messages."""

    examples: int
    bytes_: int
    characters: int


class InvalidDataset(Exception):
    """Why a file cannot be trained on, with OpenAI's code; `line` is the first bad one, from 1."""

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line


class LineTooLong(Exception):
    """A line is longer than LINE_BYTES_MAX; `number` counts from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def check(chunks: Iterable[bytes], method: Method, *, file: str = "training") -> Checked:
    """Validate a `training` or `validation` file; return its counts.

    Raises InvalidDataset naming the first bad lines, or that there are too few examples.
    """
    problems: list[tuple[int, str]] = []
    found = bytes_ = characters = 0

    def counted() -> Iterator[bytes]:
        nonlocal bytes_
        for chunk in chunks:
            bytes_ += len(chunk)
            yield chunk

    try:
        for number, line in lines(counted()):
            if not line.strip():
                continue
            try:
                characters += examples.check(_parsed(line, number), method)
                found += 1
            except Problem as problem:
                problems.append((number, problem.message))
                if len(problems) > PROBLEMS_SHOWN:
                    break
    except LineTooLong as error:
        text = f": longer than {LINE_BYTES_MAX // 1024 // 1024} MiB; each example must be a line"
        problems.append((error.number, text))
    if problems:
        raise InvalidDataset(f"invalid_{file}_file", _message(file, problems), problems[0][0])
    if found < EXAMPLES_MIN[file]:
        raise InvalidDataset(
            "invalid_n_examples",
            f"{file.capitalize()} file has {found} example(s), but must have at least"
            f" {EXAMPLES_MIN[file]} examples",
        )
    return Checked(found, bytes_, characters)


def lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, without its newline, in memory of one line. Raises LineTooLong."""
    number = 1
    pending = bytearray()
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            pending += memoryview(chunk)[start:end]
            if len(pending) > LINE_BYTES_MAX:
                raise LineTooLong(number)
            yield number, _without_end(pending, number)
            pending.clear()
            number += 1
            start = end + 1
        pending += memoryview(chunk)[start:]
        if len(pending) > LINE_BYTES_MAX:
            raise LineTooLong(number)
    if pending:
        yield number, _without_end(pending, number)


def _without_end(line: bytearray, number: int) -> bytes:
    text = bytes(line)
    if number == 1:
        text = text.removeprefix(UTF8_MARK)
    return text.removesuffix(b"\r")


def _parsed(line: bytes, number: int) -> dict[str, object]:
    """Return the object in a line. Raises Problem."""
    if number == 1 and line.startswith(UTF16_MARKS):
        raise Problem(": the file is UTF-16; save it as UTF-8")
    if sum(line.count(mark) for mark in (b",", b"[", b"{")) > LINE_VALUES_MAX:
        raise Problem(f": holds more than {LINE_VALUES_MAX} values")
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(_why_not_json(line, error)) from error
    except RecursionError as error:
        raise Problem(": nested too deeply") from error
    if isinstance(value, list):
        raise Problem(": a JSON array; each line must be one JSON object, without a list around")
    if not isinstance(value, dict):
        raise Problem(": not a JSON object")
    return value


def _why_not_json(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as wrong:
        return f": not UTF-8 text at byte {wrong.start + 1}"
    if line.strip() in {b"{", b"["}:
        return ": not valid JSON; each example must be a whole JSON object on one line"
    where = str(error).removeprefix("JSON is malformed: ")
    return f": not valid JSON ({where})"


def _message(file: str, problems: list[tuple[int, str]]) -> str:
    shown = [f"Line {number}{text}" for number, text in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        shown.append(f"There are more, from line {problems[PROBLEMS_SHOWN][0]} on")
    return f"The job failed due to an invalid {file} file. Invalid file format. {'. '.join(shown)}"
