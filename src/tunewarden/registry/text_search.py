r"""Looks for texts in the bytes of a file as they come, in constant memory. Pure: no I/O.

Texts are compared as people read them: without regard to case, accents and other combining marks, width, ligatures,
invisible formatting characters, and which white space, and how much of it, is between words. For finding too much is
looked at by a person; finding too little is not. The rule is one function of a single character (Unicode's NFKD and case
folding, then marks dropped), so that a text that is cut anywhere between two characters is compared in the same way.

Each file is also read with its JSON escapes resolved (`\u00e9`, `\"`, `\n`), once, and once more: the arguments of
tool calls are JSON in a string of JSON. A line is one of the file's own; an escaped line break begins none.
"""

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

# Lines of one file that are named for each text.
LINES_MAX = 1000
# Of white space, between two words.
SPACE_MAX = 64
ESCAPED_LEVELS = 2
# A call of C holds the interpreter for as long as one piece takes.
PIECE_BYTES = 16 * 1024

_SPACE = f"[ \\n]{{1,{SPACE_MAX}}}"
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_UNFINISHED = re.compile(r"u[0-9a-fA-F]{0,3}\Z|\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_BYTE_ORDER = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_FORMATTING = "Cf"


class _Folding(dict[int, str]):
    """What a character is compared as, by its number; made when it is first met."""

    ROOM = 20_000

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKD", chr(code)).casefold()
        kept = [one for one in unicodedata.normalize("NFKD", plain) if _is_kept(one)]
        found = "".join(" " if one.isspace() else one for one in kept)
        if len(self) < self.ROOM:
            self[code] = found
        return found


def _is_kept(one: str) -> bool:
    return not unicodedata.combining(one) and unicodedata.category(one) != _FORMATTING


_FOLDING = _Folding({ord("\n"): "\n"})


def folded(text: str) -> str:
    """Return text as it is compared. A line break stays one; other white space is a space."""
    return text.translate(_FOLDING)


def pattern(text: str) -> re.Pattern[str] | None:
    """Return what finds a text in folded text; None if nothing of it is compared, such as for spaces."""
    words = folded(text).split()
    return re.compile(_SPACE.join(map(re.escape, words))) if words else None


def compared_length(text: str) -> int:
    """Return how many characters of a text are compared, apart from white space."""
    return sum(map(len, folded(text).split()))


@dataclass(slots=True)
class Found:
    """The lines of one file in which each text begins, by the text's number. Bounded."""

    lines: dict[int, set[int]] = field(default_factory=dict)
    has_more: bool = False

    def add(self, number: int, line: int) -> bool:
        """Add a line; return whether there is room for more of this text."""
        known = self.lines.setdefault(number, set())
        if len(known) >= LINES_MAX and line not in known:
            self.has_more = True
            return False
        known.add(line)
        return True

    def is_full(self, number: int) -> bool:
        """Return whether no further line of this text is needed."""
        return self.has_more and len(self.lines.get(number, ())) >= LINES_MAX


class Search:
    """Searches one file: `feed` its bytes in order, then `end`."""

    def __init__(self, patterns: Sequence[re.Pattern[str]], found: Found) -> None:
        self._top = _Level(_Matcher(patterns, found), ESCAPED_LEVELS)
        self._decoder: codecs.IncrementalDecoder | None = None
        self._first = b""

    def feed(self, data: bytes) -> None:
        """Search the next bytes, however they are cut."""
        if self._decoder is None:
            data = self._first + data
            if len(data) < len(codecs.BOM_UTF16_LE):
                self._first = data
                return
            self._begin(data)
        for start in range(0, len(data), PIECE_BYTES):
            self._give(data[start : start + PIECE_BYTES], is_last=False)

    def end(self) -> None:
        """Search what was held back at the end."""
        if self._decoder is None:
            self._begin(self._first)
            self._give(self._first, is_last=True)
        else:
            self._give(b"", is_last=True)

    def _begin(self, data: bytes) -> None:
        name = next((name for mark, name in _BYTE_ORDER if data.startswith(mark)), "utf-8")
        # What is no text is replaced: a damaged character hides itself, not its line.
        self._decoder = codecs.getincrementaldecoder(name)("replace")

    def _give(self, data: bytes, *, is_last: bool) -> None:
        assert self._decoder is not None, "it has begun"
        self._top.feed(self._decoder.decode(data, is_last), is_last=is_last)


class _Level:
    """Searches text as it is and, from its first backslash on, with its escapes resolved too."""

    def __init__(self, matcher: "_Matcher", deeper_levels: int) -> None:
        self._matcher = matcher
        self._deeper_levels = deeper_levels
        self._deeper: _Level | None = None
        self._unescaped = _Unescaped()

    def feed(self, text: str, *, is_last: bool) -> None:
        if self._deeper is None and self._deeper_levels and "\\" in text:
            # So far both are the same.
            self._deeper = _Level(self._matcher.copy(), self._deeper_levels - 1)
        if self._deeper is not None:
            self._deeper.feed(self._unescaped.take(text, is_last=is_last), is_last=is_last)
        self._matcher.feed(text)


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

    def __init__(self, patterns: Sequence[re.Pattern[str]], found: Found) -> None:
        self._patterns = patterns
        self._found = found
        spaces = max(one.pattern.count(_SPACE) for one in patterns)
        longest = max(len(one.pattern) for one in patterns)
        self._kept_length = longest + SPACE_MAX * spaces
        self._kept = ""
        self._lines_before = 0

    def copy(self) -> "_Matcher":
        other = _Matcher(self._patterns, self._found)
        other._kept, other._lines_before = self._kept, self._lines_before
        return other

    def feed(self, text: str) -> None:
        searched = self._kept + folded(text)
        for number, one in enumerate(self._patterns):
            self._look(number, one, searched)
        dropped = max(0, len(searched) - self._kept_length)
        self._lines_before += searched.count("\n", 0, dropped)
        self._kept = searched[dropped:]

    def _look(self, number: int, one: re.Pattern[str], searched: str) -> None:
        line, counted = self._lines_before + 1, 0
        if self._found.is_full(number):
            return
        for match in one.finditer(searched):
            if match.end() > len(self._kept):  # else it was found before
                line += searched.count("\n", counted, match.start())
                counted = match.start()
                if not self._found.add(number, line):
                    return
