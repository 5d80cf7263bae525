r"""Looks for texts in the bytes of a file as they come, in constant memory. Pure: no I/O.

Texts are compared as people read them: without regard to case, accents and other combining marks, width, ligatures,
invisible formatting characters, which apostrophe, which hyphen or dash, and which white space, and how much of it, is
between words. For finding too much is looked at by a person; finding too little is not. The rule is one function of a single character (Unicode's NFKD and case
folding, then marks dropped and what looks alike made one), so that a text that is cut anywhere between two characters is compared in the same way.

Each file is also read with its JSON escapes resolved (`\u00e9`, `\"`, `\n`), once, and once more: the arguments of
tool calls are JSON in a string of JSON. A line is one of the file's own; an escaped line break begins none.

The time is linear in the data whatever the texts are, and every function that takes data yields after each bit of work,
so that the caller can rest or stop there.
"""

import codecs
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# Lines of one file that are named for each text.
LINES_MAX = 1000
ESCAPED_LEVELS = 2
# A call of C holds the interpreter for as long as one piece takes.
PIECE_BYTES = 16 * 1024
# Bytes that are decoded, and characters that are folded, at a time: each may cost a call of Python.
_AT_ONCE = 2 * 1024
# How many matches of a text are taken at a time.
MATCHES_AT_ONCE = 100

_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_UNFINISHED = re.compile(r"u[0-9a-fA-F]{0,3}\Z|\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
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
_ALIKE = dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_HYPHENS, "-") | {"\u0131": "i"}


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

    def is_in(self, text: str) -> bool:
        """Return whether a whole text has it."""
        return self.literal.search(spaced(text)) is not None


def pattern(text: str) -> Pattern | None:
    """Return the pattern of a text; None if nothing of it is compared, such as for spaces."""
    words = spaced(text)
    return Pattern(re.compile(re.escape(words)), len(words)) if words else None


def compared_length(text: str) -> int:
    """Return how many characters of a text are compared, apart from white space."""
    return sum(map(len, folded(text).split()))


@dataclass(slots=True)
class Found:
    """The lines of one file in which each text begins, by the text's number. Bounded."""

    lines: dict[int, set[int]] = field(default_factory=dict)
    has_more: bool = False

    def add(self, number: int, line: int) -> None:
        """Add a line of a text, if there is room for it."""
        known = self.lines.setdefault(number, set())
        if len(known) >= LINES_MAX and line not in known:
            self.has_more = True
        else:
            known.add(line)

    def is_full(self, number: int) -> bool:
        """Return whether no further line of this text is needed."""
        return self.has_more and len(self.lines.get(number, ())) >= LINES_MAX


class Search:
    """Searches one file: `feed` its bytes in order, then `end`. Both work as far as they are iterated."""

    def __init__(self, patterns: Sequence[Pattern], found: Found) -> None:
        self._patterns = patterns
        self._found = found
        self._readings: list[_Reading] = []
        self._first = b""

    def feed(self, data: bytes) -> Iterator[None]:
        """Search the next bytes, however they are cut."""
        if not self._readings:
            data = self._first + data
            if len(data) < FIRST_BYTES:
                self._first = data
                return
            self._begin(data)
        for start in range(0, len(data), PIECE_BYTES):
            yield from self._give(data[start : start + PIECE_BYTES], is_last=False)

    def end(self) -> Iterator[None]:
        """Search what was held back at the end."""
        if self._readings:
            yield from self._give(b"", is_last=True)
        else:
            self._begin(self._first)
            yield from self._give(self._first, is_last=True)

    def _begin(self, data: bytes) -> None:
        marked = next((name for mark, name in _BYTE_ORDER if data.startswith(mark)), None)
        # What looks like UTF-16 may be something else with ASCII in it: it is read in both ways.
        names = [marked] if marked else ["utf-8", *_unmarked(data[:FIRST_BYTES])]
        self._readings = [_Reading(name, self._patterns, self._found) for name in names]

    def _give(self, data: bytes, *, is_last: bool) -> Iterator[None]:
        for one in self._readings:
            yield from one.feed(data, is_last=is_last)


def _unmarked(data: bytes) -> list[str]:
    """Return the order of bytes in which the begin of a file without a mark looks like UTF-16, if it does."""
    pairs = max(1, len(data) // 2)
    even, odd = data[::2].count(0) / pairs, data[1::2].count(0) / pairs
    if odd >= _ZEROS_MIN and even <= _OTHER_ZEROS_MAX:
        return [_LITTLE]
    return [_BIG] if even >= _ZEROS_MIN and odd <= _OTHER_ZEROS_MAX else []


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as Windows-1252, which is Latin-1 too: what is damaged hides nothing after it."""
    assert isinstance(error, UnicodeDecodeError), "nothing is encoded with it"
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


_AS_WINDOWS = "tunewarden.windows-1252"
codecs.register_error(_AS_WINDOWS, _as_windows)


class _Reading:
    """Searches a file as text in one encoding."""

    def __init__(self, name: str, patterns: Sequence[Pattern], found: Found) -> None:
        errors = _AS_WINDOWS if name == "utf-8" else "replace"
        self._decoder = codecs.getincrementaldecoder(name)(errors)
        self._top = _Level(_Matcher(patterns, found), ESCAPED_LEVELS)

    def feed(self, data: bytes, *, is_last: bool) -> Iterator[None]:
        parts = []
        for start in range(0, len(data), _AT_ONCE):
            parts.append(self._decoder.decode(data[start : start + _AT_ONCE]))
            yield
        parts.append(self._decoder.decode(b"", is_last))
        yield from self._top.feed("".join(parts), is_last=is_last)


class _Level:
    """Searches text as it is and, from its first backslash on, with its escapes resolved too."""

    def __init__(self, matcher: "_Matcher", deeper_levels: int) -> None:
        self._matcher = matcher
        self._deeper_levels = deeper_levels
        self._deeper: _Level | None = None
        self._unescaped = _Unescaped()

    def feed(self, text: str, *, is_last: bool) -> Iterator[None]:
        if self._deeper is None and self._deeper_levels and "\\" in text:
            # So far both are the same.
            self._deeper = _Level(self._matcher.copy(), self._deeper_levels - 1)
        if self._deeper is not None:
            resolved = self._unescaped.take(text, is_last=is_last)
            yield
            yield from self._deeper.feed(resolved, is_last=is_last)
        yield from self._matcher.feed(text)


class _Unescaped:
    """Resolves JSON's escapes in a text that comes in pieces. What is no escape stays as it is."""

    def __init__(self) -> None:
        self._held = ""
        self._high = ""

    def take(self, text: str, *, is_last: bool) -> str:
        """Return the next piece; an escape, or half of a character, that may go on is held back."""
        text = self._held + text
        begin = len(text) if is_last else _begin_of_unfinished(text)
        self._held = text[begin:]
        resolved = self._high + _ESCAPE.sub(_resolved, text[:begin])
        self._high = ""
        if not is_last and resolved and "\ud800" <= resolved[-1] <= "\udbff":
            resolved, self._high = resolved[:-1], resolved[-1]
        return resolved if resolved.isascii() else _PAIR.sub(_joined, resolved)


def _begin_of_unfinished(text: str) -> int:
    """Return where an escape begins that the end of a text may have cut; the text's length if there is none."""
    match = _UNFINISHED.search(text, max(0, len(text) - len("u000")))
    assert match is not None, "the end always matches"
    end = match.start()
    slashes = end - len(text[:end].rstrip("\\"))
    # Two of them are an escape that is complete.
    return end - 1 if slashes % 2 else len(text)


def _resolved(match: re.Match[str]) -> str:
    number, one = match.groups()
    if number is None:
        return " " if one in "bfnrt" else str(one)
    found = chr(int(number, 16))
    return " " if found == "\n" else found


def _joined(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


class _Matcher:
    """Searches text in pieces: the end of what was searched is kept, because a text may go on in the next piece."""

    def __init__(self, patterns: Sequence[Pattern], found: Found) -> None:
        self._patterns = patterns
        self._found = found
        self._kept_length = max(one.length for one in patterns) - 1
        self._text = _SpacedText()

    def copy(self) -> "_Matcher":
        other = _Matcher(self._patterns, self._found)
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
            self._found.add(number, self._text.line(match.start()))
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
