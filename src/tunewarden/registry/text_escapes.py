r"""Resolves escapes in text that comes in pieces: JSON's, HTML's character references, percent-encoding. Pure: no I/O.

The result does not depend on where the text is cut: an escape that may go on in the next piece is held back, and so is
half of a character. What is no escape stays as it is. A line break that was escaped is a space: it begins no line.
"""

import codecs
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.entities import html5

# How many parts are made at a time: each may cost a few calls of Python.
_AT_ONCE = 4 * 1024
# Every escape has fewer characters.
_UNFINISHED_MAX = 40
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as Windows-1252, which is Latin-1 too: what is damaged hides nothing after it."""
    assert isinstance(error, UnicodeDecodeError), "nothing is encoded with it"
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


# The name of what to do with bytes that are no UTF-8.
AS_WINDOWS = "tunewarden.windows-1252"
codecs.register_error(AS_WINDOWS, _as_windows)


class _Characters(dict[str, str]):
    """What an escape stands for; found out when it is first met."""

    ROOM = 20_000
    LENGTH_MAX = 2

    def __missing__(self, escape: str) -> str:
        # An escaped line break begins no line.
        found = _character(escape).replace("\n", " ")
        if len(found) > self.LENGTH_MAX:
            return found  # None that is known: words of the file, which are kept nowhere.
        if len(self) >= self.ROOM:
            self.clear()
        self[escape] = found
        return found


_CHARACTERS = _Characters()


@dataclass(frozen=True, slots=True)
class Syntax:
    """A way to write characters as others. `escape` has one group, which is all of it."""

    escape: re.Pattern[str]
    # Each looks for one character first, which is fast.
    marks: tuple[re.Pattern[str], ...]

    def is_in(self, text: str) -> bool:
        """Return whether a text is to be read so: else it is the same when its escapes are resolved."""
        return any(mark.search(text) for mark in self.marks)


class Unescaped:
    """A text with its escapes resolved once."""

    def __init__(self, syntax: Syntax, high: str = "") -> None:
        self._escape = syntax.escape
        self._high = high

    def read_as(self, syntax: Syntax) -> "Unescaped":
        """Return what goes on from here with the escapes of another syntax."""
        return Unescaped(syntax, self._high)

    def take(self, text: str) -> Iterator[str]:
        """Yield what a piece is, in parts. No escape goes on after the piece (`complete_length`)."""
        parts = self._escape.split(text)
        for start in range(0, len(parts), _AT_ONCE):
            part = parts[start : start + _AT_ONCE]
            part[1::2] = map(_CHARACTERS.__getitem__, part[1::2])
            yield self._joined("".join(part))

    def end(self) -> str:
        """Return what was held back."""
        return self._high

    def _joined(self, text: str) -> str:
        """Make characters of their halves in UTF-16; a first half at the end waits for the other one."""
        text = self._high + text
        self._high = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        text = text[: len(text) - len(self._high)]
        return text if text.isascii() else _PAIR.sub(_one, text)


def complete_length(text: str) -> int:
    """Return where an escape begins that the end of a text may have cut; the text's length if there is none."""
    match = _UNFINISHED.search(text, max(0, len(text) - _UNFINISHED_MAX))
    if match is None:
        return len(text)
    begin = match.start()
    if text[begin] != "\\":
        return begin
    slashes = begin + 1 - len(text[: begin + 1].rstrip("\\"))
    # Two of them are an escape that is complete.
    return begin if slashes % 2 else len(text)


def _one(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _character(escape: str) -> str:
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[1] == "u":
        return bytes.fromhex(escape[2:]).decode("utf-16-be", "surrogatepass")
    if escape[0] == "%":
        return bytes.fromhex(escape.replace("%", "")).decode("utf-8", AS_WINDOWS)
    return " " if escape[1] in "bfnrt" else escape[1]


# Each begins with one of a few characters, for which `re` looks fast; which one it was is looked back at.
# RFC 8259 §7.
_JSON = r'(?<=\\)(?:u[0-9a-fA-F]{4}|["\\/bfnrt])'
_JSON_UNFINISHED = r"\\(?:u[0-9a-fA-F]{0,3})?\Z"
# As browsers read them (HTML §13.2.5.72): some names need no semicolon, and numbers may begin with zeros.
_BARE = "|".join(sorted((one for one in html5 if not one.endswith(";")), key=len, reverse=True))
_REFERENCE = f"(?<=&)(?:#(?:[xX][0-9a-fA-F]{{1,32}}|[0-9]{{1,32}});?|[a-zA-Z][a-zA-Z0-9]{{1,30}};|(?:{_BARE}))"
_REFERENCE_UNFINISHED = r"&(?:#(?:[xX][0-9a-fA-F]{0,32}|[0-9]{0,32})|[a-zA-Z][a-zA-Z0-9]{0,30})?\Z"
# RFC 3986 §2.1, with all bytes of a character of UTF-8, and what JavaScript's `escape` makes.
_NEXT = "%[89abAB][0-9a-fA-F]"
_PERCENT = (
    f"(?<=%)(?:[cdCD][0-9a-fA-F]{_NEXT}|[eE][0-9a-fA-F](?:{_NEXT}){{2}}"
    f"|[fF][0-7](?:{_NEXT}){{3}}|[0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}})"
)
# Also a character of UTF-8 that may go on.
_PERCENT_UNFINISHED = (
    rf"%(?:[c-fC-F][0-9a-fA-F](?:{_NEXT}){{0,2}}(?:%[89abAB]?)?"
    r"|[0-9a-fA-F]|u[0-9a-fA-F]{0,3})?\Z"
)
_UNFINISHED = re.compile(f"{_REFERENCE_UNFINISHED}|{_PERCENT_UNFINISHED}|{_JSON_UNFINISHED}")
_JSON_MARK = re.compile(rf"\\{_JSON}")
_WEB_MARKS = (re.compile(f"&{_REFERENCE}"), re.compile(f"%{_PERCENT}"))

JSON = Syntax(re.compile(rf"(\\{_JSON})"), (_JSON_MARK,))
# All of them at once, unless there are JSON's alone: they are read as JSON.
WEB = Syntax(re.compile(rf"([&%\\](?:{_REFERENCE}|{_PERCENT}|{_JSON}))"), _WEB_MARKS)
WEB_AGAIN = replace(WEB, marks=(*_WEB_MARKS, _JSON_MARK))
