r"""Looks for texts in the bytes of a file as they come, in constant memory. Pure: no I/O.

Texts are compared as people read them: without regard to case, accents and other combining marks, width, ligatures,
invisible formatting characters, which apostrophe, which hyphen or dash, and which white space or plus, and how much of
it, is between words. For finding too much is looked at by a person; finding too little is not. The rule is one function
of a single character (Unicode's NFKD and case folding, then marks dropped and what looks alike made one), so that a
text that is cut anywhere between two characters is compared in the same way.

A file is read as it is written, and besides, where it has such escapes (`text_escapes`), in two other ways: with
JSON's resolved, twice, for the arguments of tool calls are JSON in a string of JSON; and, for pages of the web, with
HTML's character references, percent-encoding and JSON's resolved together, three times. Until the first escape of the
web the two are one, so that a file of JSON is not read twice; the web's may be what JSON's stand for (`\u0026euml;`). A
line is one of the file's own; an escaped line break begins none.

The time is linear in the data whatever the texts are, and every function that takes data yields after each bit of work,
so that the caller can rest or stop there.
"""

import codecs
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain

from tunewarden.registry.text_escapes import (
    AS_WINDOWS,
    JSON,
    WEB,
    WEB_AGAIN,
    Syntax,
    Unescaped,
    complete_length,
)

# Lines of one file that are named for each text.
LINES_MAX = 1000
# A call of C holds the interpreter for as long as one piece takes.
PIECE_BYTES = 16 * 1024
# Bytes that are decoded, and characters that are folded, at a time: each may cost a call of Python.
_AT_ONCE = 2 * 1024
# How many matches of a text are taken at a time.
MATCHES_AT_ONCE = 100

_LITTLE, _BIG = "utf-16-le", "utf-16-be"
_BYTE_ORDER = ((codecs.BOM_UTF16_LE, _LITTLE), (codecs.BOM_UTF16_BE, _BIG))
# In how many bytes of a file UTF-16 without a byte order mark is recognized: of its characters, at least half have one
# byte that is 0, always on the same side.
FIRST_BYTES = 1024
_ZEROS_MIN = 0.5
_OTHER_ZEROS_MAX = 0.1
_FORMATTING, _DASH = "Cf", "Pd"
_APOSTROPHES = "'`\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\ua78c"
# A minus, a hyphen bullet; the others are of the category.
_HYPHENS = "\u2212\u2043"
# A plus is the space of a form's query.
_ALIKE = dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_HYPHENS, "-") | {"\u0131": "i", "+": " "}


class Reading(IntEnum):
    """A way to read a file; the first one that finds a text in a line is named."""

    AS_WRITTEN = 0
    JSON = 1
    WEB = 2


# How often the escapes of each are resolved.
_PASSES = {Reading.JSON: 2, Reading.WEB: 3}


class _Folding(dict[int, str]):
    """What a character is compared as, by its number; made when it is first met."""

    ROOM = 20_000

    def __missing__(self, code: int) -> str:
        # First of all, for an acute accent of its own is decomposed.
        one = _ALIKE.get(chr(code), chr(code))
        plain = unicodedata.normalize("NFKD", one).casefold()
        kept = [one for one in unicodedata.normalize("NFKD", plain) if _is_kept(one)]
        found = "".join(map(_alike, kept))
        if len(self) >= self.ROOM:
            # Rare characters must not keep the frequent ones out for ever.
            self.clear()
        self[code] = found
        return found


def _is_kept(one: str) -> bool:
    return not unicodedata.combining(one) and unicodedata.category(one) != _FORMATTING


def _alike(one: str) -> str:
    if one == "\n":
        return one
    if one.isspace():
        return " "
    return "-" if unicodedata.category(one) == _DASH else _ALIKE.get(one, one)


_FOLDING = _Folding()


def folded(text: str) -> str:
    """Return text as it is compared. A line break stays one; other white space is a space."""
    return text.translate(_FOLDING)


def spaced(text: str) -> str:
    """Return text as it is compared, with one space between its words."""
    return " ".join(folded(text).split())


@dataclass(frozen=True, slots=True)
class Pattern:
    """Finds a text in `spaced` text. Of literal characters only: `re` does that in linear time (Knuth-Morris-Pratt)."""

    literal: re.Pattern[str]
    length: int


def pattern(text: str) -> Pattern | None:
    """Return the pattern of a text; None if nothing of it is compared, such as for spaces."""
    words = spaced(text)
    return Pattern(re.compile(re.escape(words)), len(words)) if words else None


def compared_length(text: str) -> int:
    """Return how many characters of a text are compared, apart from white space."""
    return sum(map(len, folded(text).split()))


@dataclass(slots=True)
class Found:
    """The lines of one file in which each text begins, by the text's number, and how it was read. Bounded."""

    lines: dict[int, dict[int, Reading]] = field(default_factory=dict)
    has_more: bool = False

    def add(self, number: int, line: int, reading: Reading) -> None:
        """Add a line of a text, if there is room for it."""
        known = self.lines.setdefault(number, {})
        if len(known) >= LINES_MAX and line not in known:
            self.has_more = True
        else:
            known[line] = min(reading, known.get(line, reading))

    def is_full(self, number: int) -> bool:
        """Return whether no further line of this text is needed."""
        return self.has_more and len(self.lines.get(number, ())) >= LINES_MAX


def in_name(patterns: Sequence[Pattern], name: str) -> dict[int, Reading]:
    """Return the numbers of the texts that a short name has, and how it was read."""
    found = Found()
    search = Search(patterns, found)
    data = name.encode("utf-8", "surrogatepass")
    for _ in chain(search.feed(data), search.end()):
        pass
    return {number: min(lines.values()) for number, lines in found.lines.items()}


class Search:
    """Searches one file: `feed` its bytes in order, then `end`. Both work as far as they are iterated."""

    def __init__(self, patterns: Sequence[Pattern], found: Found) -> None:
        self._patterns = patterns
        self._found = found
        self._encodings: list[_Encoding] = []
        self._first = b""

    def feed(self, data: bytes) -> Iterator[None]:
        """Search the next bytes, however they are cut."""
        if not self._encodings:
            data = self._first + data
            if len(data) < FIRST_BYTES:
                self._first = data
                return
            self._begin(data)
        for start in range(0, len(data), PIECE_BYTES):
            yield from self._give(data[start : start + PIECE_BYTES], is_last=False)

    def end(self) -> Iterator[None]:
        """Search what was held back at the end."""
        if self._encodings:
            yield from self._give(b"", is_last=True)
        else:
            self._begin(self._first)
            yield from self._give(self._first, is_last=True)

    def _begin(self, data: bytes) -> None:
        marked = next((name for mark, name in _BYTE_ORDER if data.startswith(mark)), None)
        # What looks like UTF-16 may be something else with ASCII in it: it is read in both ways.
        names = [marked] if marked else ["utf-8", *_unmarked(data[:FIRST_BYTES])]
        self._encodings = [_Encoding(name, self._patterns, self._found) for name in names]

    def _give(self, data: bytes, *, is_last: bool) -> Iterator[None]:
        for one in self._encodings:
            yield from one.feed(data, is_last=is_last)


def _unmarked(data: bytes) -> list[str]:
    """Return the order of bytes in which the begin of a file without a mark looks like UTF-16, if it does."""
    pairs = max(1, len(data) // 2)
    even, odd = data[::2].count(0) / pairs, data[1::2].count(0) / pairs
    if odd >= _ZEROS_MIN and even <= _OTHER_ZEROS_MAX:
        return [_LITTLE]
    return [_BIG] if even >= _ZEROS_MIN and odd <= _OTHER_ZEROS_MAX else []


class _Encoding:
    """Searches a file as text in one encoding."""

    def __init__(self, name: str, patterns: Sequence[Pattern], found: Found) -> None:
        errors = AS_WINDOWS if name == "utf-8" else "replace"
        self._decoder = codecs.getincrementaldecoder(name)(errors)
        self._top = _Level(_Matcher(patterns, found, Reading.AS_WRITTEN), _PASSES)

    def feed(self, data: bytes, *, is_last: bool) -> Iterator[None]:
        parts = []
        for start in range(0, len(data), _AT_ONCE):
            parts.append(self._decoder.decode(data[start : start + _AT_ONCE]))
            yield
        parts.append(self._decoder.decode(b"", is_last))
        yield from self._top.feed("".join(parts), is_last=is_last)


class _Level:
    """Searches text as it is and, from the first mark of each reading on, with the escapes of that resolved too.

    `passes` says how often each reading may still resolve escapes.
    """

    def __init__(self, matcher: "_Matcher", passes: Mapping[Reading, int]) -> None:
        self._matcher = matcher
        self._passes = {reading: count for reading, count in passes.items() if count}
        self._deeper: dict[Reading, tuple[Unescaped, _Level]] = {}
        self._held = ""

    def feed(self, text: str, *, is_last: bool) -> Iterator[None]:
        text, self._held = self._held + text, ""
        if self._passes and not is_last:
            length = complete_length(text)
            text, self._held = text[:length], text[length:]
        for reading in self._passes:
            if reading not in self._deeper and self._syntax(reading).is_in(text):
                self._deeper[reading] = self._begun(reading)
            yield
        for unescaped, deeper in self._deeper.values():
            parts = []
            for part in unescaped.take(text):
                parts.append(part)
                yield
            if is_last:
                parts.append(unescaped.end())
            yield from deeper.feed("".join(parts), is_last=is_last)
        yield from self._matcher.feed(text)

    def _syntax(self, reading: Reading) -> Syntax:
        if reading is Reading.JSON:
            return JSON
        # What has JSON's escapes alone is read as JSON, if it still may be.
        return WEB if Reading.JSON in self._passes else WEB_AGAIN

    def _begun(self, reading: Reading) -> "tuple[Unescaped, _Level]":
        """Return how a reading goes on from here. What was before its first mark is the same without it."""
        if reading is Reading.WEB and Reading.JSON in self._deeper:
            unescaped, as_json = self._deeper[Reading.JSON]
            return unescaped.read_as(WEB_AGAIN), as_json.split_off_web()
        passes = {reading: self._passes[reading] - 1}
        if reading is Reading.JSON and Reading.WEB in self._passes.keys() - self._deeper.keys():
            passes[Reading.WEB] = self._passes[Reading.WEB] - 1
        return Unescaped(self._syntax(reading)), _Level(self._matcher.copy(reading), passes)

    def split_off_web(self) -> "_Level":
        """Return what reads as the web what was read as JSON so far; this level goes on with JSON alone."""
        count = self._passes.pop(Reading.WEB, 0)
        level = _Level(self._matcher.copy(Reading.WEB), {Reading.WEB: count})
        level._held = self._held
        if Reading.WEB in self._deeper:
            level._deeper[Reading.WEB] = self._deeper.pop(Reading.WEB)
        elif count and Reading.JSON in self._deeper:
            unescaped, as_json = self._deeper[Reading.JSON]
            level._deeper[Reading.WEB] = unescaped.read_as(WEB_AGAIN), as_json.split_off_web()
        return level


class _Matcher:
    """Searches text in pieces: the end of what was searched is kept, because a text may go on in the next piece."""

    def __init__(self, patterns: Sequence[Pattern], found: Found, reading: Reading) -> None:
        self._patterns = patterns
        self._found = found
        self._reading = reading
        self._kept_length = max(one.length for one in patterns) - 1
        self._text = _SpacedText()

    def copy(self, reading: Reading) -> "_Matcher":
        other = _Matcher(self._patterns, self._found, reading)
        other._text = self._text.copy()
        return other

    def feed(self, text: str) -> Iterator[None]:
        known = len(self._text.text)
        parts = []
        for start in range(0, len(text), _AT_ONCE):
            parts.append(folded(text[start : start + _AT_ONCE]))
            yield
        self._text.add("".join(parts))
        yield
        for number, one in enumerate(self._patterns):
            yield from self._look(number, one, known)
        self._text.keep(self._kept_length)

    def _look(self, number: int, one: Pattern, known: int) -> Iterator[None]:
        """Find the lines in which a text begins. What ends in the part that is `known` was found before."""
        text, taken = self._text.text, 0
        start: int | None = max(0, known - one.length + 1)
        while start is not None and not self._found.is_full(number):
            match = one.literal.search(text, start)
            if match is None:
                break
            self._found.add(number, self._text.line(match.start()), self._reading)
            start = self._text.next_line(match.start())
            taken += 1
            if taken % MATCHES_AT_ONCE == 0:
                yield
        yield


class _SpacedText:
    """The end of a text with one space between words, and where its lines begin; those without words are left out."""

    def __init__(self) -> None:
        self.text = ""
        self._begins: list[int] = []
        self._lines: list[int] = []
        self._line = 1
        self._is_spaced = False

    def copy(self) -> "_SpacedText":
        other = _SpacedText()
        other.text, other._line, other._is_spaced = self.text, self._line, self._is_spaced
        other._begins, other._lines = self._begins.copy(), self._lines.copy()
        return other

    def add(self, more: str) -> None:
        """Add folded text."""
        parts = [self.text]
        length = len(self.text)
        for number, line in enumerate(more.split("\n")):
            if number:
                self._line += 1
                self._is_spaced = True
            words = " ".join(line.split())
            if words:
                if self._is_spaced or line[0] == " ":
                    words = " " + words
                if not self._lines or self._lines[-1] != self._line:
                    self._begins.append(length + (words[0] == " "))
                    self._lines.append(self._line)
                parts.append(words)
                length += len(words)
            if line:
                self._is_spaced = line[-1] == " "
        self.text = "".join(parts)

    def line(self, at: int) -> int:
        """Return the number of the line that has this character, which is no space."""
        return self._lines[bisect_right(self._begins, at) - 1]

    def next_line(self, at: int) -> int | None:
        """Return where the next line begins after the one that has this character."""
        index = bisect_right(self._begins, at)
        return self._begins[index] if index < len(self._begins) else None

    def keep(self, length: int) -> None:
        """Forget all but the last characters."""
        dropped = max(0, len(self.text) - length)
        self.text = self.text[dropped:]
        first = max(0, bisect_right(self._begins, dropped) - 1)
        self._begins = [max(0, begin - dropped) for begin in self._begins[first:]]
        self._lines = self._lines[first:]
