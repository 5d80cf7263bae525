"""Finds the calls of tools in what a model says, while it says it.

A call is sent when it is complete, because nothing that was sent can be taken back if it turns out to be no call. It is
none if it is not JSON as its format wants it, or names no function that may be called; then it is text, as it is.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tunewarden.embedded_engine.text import overlap
from tunewarden.tool_formats import Layout, ToolFormat

# A text that begins with an object, of which so much is there, is no call unless it looks like one.
BARE_CHARACTERS = 32
BARE = re.compile(r'\s*\{\s*"(name|type|function|arguments|parameters)"\s*:')
BETWEEN_OBJECTS = re.compile(r"[\s;,]*")


@dataclass(frozen=True, slots=True)
class Call:
    """A call; `arguments` is an object as JSON."""

    name: str
    arguments: str


Piece = str | Call


class CallReader:
    """Reads one choice. `names` are those of the functions that may be called.

    What follows the first call is left out if `takes_one`. White space around calls is left out, too; and if a call
    `is_forced`, all that is none: it can only be the begin of one that was cut.
    """

    def __init__(
        self,
        found: ToolFormat,
        names: frozenset[str],
        *,
        takes_one: bool = False,
        is_forced: bool = False,
    ) -> None:
        self.calls = 0
        self._format = found
        self._names = names
        self._takes_one = takes_one
        self._is_forced = is_forced
        self._begins = not found.is_bare  # whether the begin of the text was read
        self._text = ""  # not told yet
        self._blank = ""
        # Of a call that has begun: the mark, what follows it, and the last characters, which may begin the end mark.
        self._mark: str | None = None
        self._inner: list[str] = []
        self._last = ""

    def push(self, text: str) -> list[Piece]:
        """Return what is certain now."""
        return self._told(self._read(text))

    def flush(self) -> list[Piece]:
        """Return the rest: the text has ended."""
        return self._told(self._rest())

    def _told(self, pieces: Iterable[Piece]) -> list[Piece]:
        return [one for one in pieces if isinstance(one, Call) or not self._is_forced]

    def _read(self, text: str) -> Iterator[Piece]:
        while text:
            if self._takes_one and self.calls:
                return
            if self._mark is None:
                piece, text = self._say(text)
                yield from piece
            else:
                pieces, text = self._collect(text)
                yield from pieces

    def _rest(self) -> Iterator[Piece]:
        if self._takes_one and self.calls:
            return
        if self._mark is not None:
            mark, inner = self._mark, "".join(self._inner)
            self._mark, self._inner = None, []
            yield from self._calls_or(mark + inner, inner)
        else:
            held, self._text = self._text, ""
            yield from self._spaced(held)
        if self._blank and not self.calls:
            blank, self._blank = self._blank, ""
            yield blank

    def _say(self, text: str) -> tuple[Iterable[Piece], str]:
        """Read text up to a mark; return what may be told, and what follows the mark."""
        text, self._text = self._text + text, ""
        if not self._begins:
            if not text.strip() or (
                len(text) < BARE_CHARACTERS and text.lstrip()[0] == "{" and not BARE.match(text)
            ):
                self._text = text
                return (), ""
            self._begins = True
            if BARE.match(text):
                self._mark = ""
                return (), text
        mark = self._format.begin
        at = text.find(mark)
        if at >= 0:
            self._mark = mark
            return self._spaced(text[:at]), text[at + len(mark) :]
        held = overlap(text, mark)
        self._text = text[len(text) - held :]
        return self._spaced(text[: len(text) - held]), ""

    def _collect(self, text: str) -> tuple[Iterable[Piece], str]:
        """Read the inside of a call; return its calls if it is complete, and what follows its end mark."""
        end = self._format.end
        if not end:
            self._inner.append(text)
            return (), ""
        self._inner.append(text)
        window = self._last + text
        if end not in window:
            self._last = window[-(len(end) - 1) :]
            return (), ""
        inner, _, rest = "".join(self._inner).partition(end)
        mark, self._mark, self._inner, self._last = self._mark or "", None, [], ""
        return self._calls_or(mark + inner + end, inner), rest

    def _calls_or(self, whole: str, inner: str) -> Iterator[Piece]:
        """Yield the calls of what stood behind a mark; the whole as text if they are none."""
        calls = _parsed(self._format, inner)
        if not calls or any(call.name not in self._names for call in calls):
            yield from self._spaced(whole)
            return
        calls = calls[:1] if self._takes_one else calls
        self.calls += len(calls)
        self._blank = ""
        yield from calls

    def _spaced(self, text: str) -> Iterator[str]:
        """Yield text, but hold back white space at its end, which may stand before a call."""
        text = self._blank + text
        said = text.rstrip()
        self._blank = text[len(said) :]
        if said:
            yield said


def _parsed(found: ToolFormat, inner: str) -> list[Call] | None:
    """Return the calls that stand behind a mark, or None if it does not hold what the format wants."""
    try:
        if found.layout is Layout.NAMED:
            return [_named(part, found) for part in inner.split(found.begin)]
        entries = _objects(inner)
        if found.layout is Layout.LIST and len(entries) == 1 and isinstance(entries[0], list):
            entries = entries[0]
        if found.layout is Layout.OBJECT and len(entries) != 1:
            return None
        return [_call(entry) for entry in entries]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _named(text: str, found: ToolFormat) -> Call:
    name, separator, arguments = text.partition(found.separator)
    if not separator:
        raise ValueError("a call without arguments")
    (entry,) = _objects(arguments)
    # An id may follow the name, behind a mark of its own.
    return _call({"name": name.partition("[")[0].strip(), "arguments": entry})


def _call(entry: Any) -> Call:
    name = entry["name"]
    arguments = entry["arguments"] if "arguments" in entry else entry.get("parameters", {})
    if isinstance(arguments, str):
        (arguments,) = _objects(arguments)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise TypeError("a call has a name and an object")
    return Call(name, _as_json(arguments))


def _as_json(arguments: dict[str, Any]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which a model may have escaped
        return json.dumps(arguments)
    return text


def _objects(text: str) -> list[Any]:
    """Return the JSON values in a text, one behind the other. Raises ValueError if anything else is there."""
    values, at = [], 0
    at = _skipped(text, at)
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        values.append(value)
        at = _skipped(text, at)
    return values


def _skipped(text: str, at: int) -> int:
    found = BETWEEN_OBJECTS.match(text, at)
    return found.end() if found else at


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


# Models write line breaks into strings as they are.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refused)
