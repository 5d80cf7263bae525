"""Texts are found wherever a file is cut, however JSON escapes them, and as people read them."""

import html
import html.entities
import json
import sys
import time
import tracemalloc
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.registry.text_search import (
    FIRST_BYTES,
    LINES_MAX,
    PIECE_BYTES,
    Found,
    Reading,
    Search,
    folded,
    in_name,
    pattern,
)

# Of each kind that is treated apart: escapes, marks, a ligature, a character beyond U+FFFF, spaces, line breaks.
LETTERS = st.text('aAé\u0131"\\/u0dnﬁ😀 \u00a0\u0301\u200bße\n&#;%+xC39', max_size=40)


def _all(work: Iterator[None]) -> None:
    for _ in work:
        pass


def lines(data: bytes, *texts: str, cut: int = 0) -> list[list[int]]:
    """Return for each text the lines in which it begins; `cut`: of how many bytes each piece is."""
    return [sorted(one) for one in readings(data, *texts, cut=cut)]


def readings(data: bytes, *texts: str, cut: int = 0) -> list[dict[int, Reading]]:
    """Return for each text the lines in which it begins, and how it was read."""
    patterns = [pattern(text) for text in texts]
    assert None not in patterns
    found = Found()
    search = Search([one for one in patterns if one], found)
    for start in range(0, len(data), cut or len(data) or 1):
        _all(search.feed(data[start : start + (cut or len(data))]))
    _all(search.end())
    return [found.lines.get(number, {}) for number in range(len(texts))]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("José García", "JOSÉ GARCÍA"),
        ("José", unicodedata.normalize("NFD", "José")),
        (unicodedata.normalize("NFD", "José"), "José"),
        ("Jose", "José"),
        ("Groß", "GROSS"),
        ("Jane Roe", "Jane\u00a0 \tRoe"),
        ("Jane Roe", "Ja\u200bne Ro\u00ade"),
        (
            "Jane Roe",
            "".join(chr(ord(one) + 0xFEE0) for one in "JaneRoe").replace("\uff32", "\u3000\uff32"),
        ),
        ("office", "oﬃce"),
        ("Jane Roe", "Jane\r\nRoe"),
        ("Jane Roe", "Jane" + " " * 20_000 + "Roe"),
        ("+49 30 1234", "+49 30 1234"),
        ("😀 Roe", "😀 Roe"),
        ("O'Brien", "O\u2019Brien"),
        ("O\u2018Brien", "O'Brien"),
        ("O'Brien", "O\u00b4Brien"),
        ("Anna-Maria", "Anna\u2011Maria"),
        ("Anna\u2013Maria", "Anna-Maria"),
        ("Anna-Maria", "Anna\u2212Maria"),
        ("Jane Roe", "https://example.org/?q=Jane+Roe"),
        ("jane+news@example.org", "jane+news@example.org"),
        ("Y\u0131lmaz", "YILMAZ"),
        ("yilmaz", "Y\u0131lmaz"),
        ("İpek", "ipek"),
        ("김철수", unicodedata.normalize("NFD", "김철수")),
    ],
)
def test_a_text_is_found_as_people_read_it(text: str, written: str) -> None:
    assert lines(f"one\ntwo {written} two\n".encode(), text) == [[2]]


def test_what_people_tell_apart_is_told_apart() -> None:
    assert lines(b"Jane Row\nJan Roe\nJaneRoe\nJane, Roe\n", "Jane Roe") == [[]]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 64])
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_json_is_searched_with_its_escapes_resolved(
    cut: int, levels: int, *, is_ascii: bool
) -> None:
    said = 'Dear "José" 😀 Roe,\nyour tab\tis'
    written = said.replace("\n", " ")
    for _ in range(levels):
        written = json.dumps({"text": said if written == said else written}, ensure_ascii=is_ascii)
    data = f"first\n{written}\nlast \\u00".encode()
    wanted = ['"José" 😀 Roe, your tab is', "jose", "nobody at all"]
    assert lines(data, *wanted, cut=cut) == [[2], [2], []]


def test_an_escaped_line_break_is_no_line_of_the_file() -> None:
    data = b'{"a":"x\\ny\\u000az"}\n{"a":"Jane"}\n'
    assert lines(data, "Jane", "y z") == [[2], [1]]


def test_a_text_that_goes_over_lines_is_named_by_the_first() -> None:
    data = b"a\n" * 70_000 + b"Jane\n  Roe\n"
    assert lines(data, "jane roe") == [[70_001]]


@given(LETTERS, LETTERS, LETTERS, st.integers(1, 9))
def test_it_does_not_matter_where_a_file_is_cut(
    before: str, text: str, after: str, cut: int
) -> None:
    if pattern(text) is None:
        return
    data = (before + text + after).encode()
    assert lines(data, text, cut=cut) == lines(data, text)


@given(st.text(max_size=60), LETTERS, st.text(max_size=60), st.integers(0, 2), st.integers(1, 7))
def test_what_json_says_is_found(before: str, text: str, after: str, levels: int, cut: int) -> None:
    if pattern(text) is None or text != text.strip():
        return
    # Line breaks are white space, but in a file they end lines.
    written = (before + "|" + text + "|" + after).replace("\\", "/").replace("\n", " ")
    wanted = text.replace("\\", "/")
    for _ in range(levels):
        written = json.dumps([written])
    assert lines(written.encode("utf-8", "surrogatepass"), wanted, cut=cut)[0]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 64])
@pytest.mark.parametrize(
    "written",
    [
        "Jos&#233; &#71;arc&#xED;a &amp; Roe",
        "Jos&#x00E9;&nbsp;Garc&iacute;a&#160;&amp;&#10;Roe",
        "Jos&eacute Garc&iacutea &amp Roe",
        "Jos&amp;eacute; Garc&amp;#237;a &amp;amp;amp; Roe",
        "Jos%C3%A9%20Garc%c3%ada%20%26+Roe",
        "Jos%E9+Garc%EDa+%26%0D%0ARoe",
        "Jos%25C3%25A9+Garc%25C3%25ADa+%2526+Roe",
        "Jos%u00e9 Garc%u00EDa & Roe",
        "Jos\\u00e9 Garc&iacute;a \\u0026amp; Roe",
        "Jos\\\\u00e9 Garc&iacute;a \\\\u0026amp; Roe",
        "%7B%22Jos%5Cu00e9%20Garc%5Cu00eda%20%26%20Roe%22%7D",
        "Jos%26eacute%3B Garc\u00eda &#x26;amp; Roe",
        "Jos&#00000233; Garc&#x000000ed;a &#0000000000000000000000038; Roe",
        # As Go's encoding/json writes JSON.
        "Jos\\u0026eacute; Garc\\u0026iacute;a \\u0026amp; Roe",
        "Jos\\\\u0026eacute; Garc\\\\u0026#237;a \\u0026 Roe",
        "Jos\\u0026amp;eacute; Garc\\u0026#237;a \\u0026 Roe",
        "Jos\\u0025C3\\u0025A9 Garc\\u0025u00eda & Roe",
        "Jos&\\u0065acute; Garc\\u0069a \\u0026\\u0023x26; Roe",
    ],
)
def test_what_pages_of_the_web_have_is_searched_with_its_escapes_resolved(
    written: str, cut: int
) -> None:
    data = f"AT&T, 5 % of it, &c.\n{written}\nlast &#2".encode()
    assert readings(data, "José García & Roe", "nobody", cut=cut) == [{2: Reading.WEB}, {}]


ESCAPES = st.lists(
    st.sampled_from(
        [
            "Zo",
            "\\u0026",
            "\\\\u0026",
            "euml;",
            "\\u0025",
            "C3",
            "&amp;",
            "%AB",
            "%5C",
            "\\n",
            "n",
            " ",
            "\n",
        ]
    ),
    max_size=12,
).map("".join)
# A file is looked at from its begin only after some bytes.
FILLED = "\n" * FIRST_BYTES


@given(ESCAPES, ESCAPES, ESCAPES, st.integers(1, 9))
def test_what_is_found_depends_neither_on_where_a_file_is_cut_nor_on_what_else_is_in_it(
    before: str, text: str, after: str, cut: int
) -> None:
    wanted = ["zo\u00eb", "\u00eb n", "zo &", "c3", "zo n"]
    data = (FILLED + before + text + after).encode()
    assert lines(data, *wanted, cut=cut) == lines(data, *wanted)
    with_web = [lines(FILLED.encode() + one, *wanted, cut=cut) for one in _with_a_mark(data)]
    assert with_web[0] == with_web[1]


def _with_a_mark(data: bytes) -> tuple[bytes, bytes]:
    """The same lines without and with a reference after all of them."""
    return data + b"\nx x", data + b"\nx &amp; x"


def test_the_first_reading_that_finds_a_text_is_named() -> None:
    data = "José\nJos\\u00e9\nJos&eacute;\nJos%C3%A9 José\n😀 &#128512;".encode()
    named = {1: Reading.AS_WRITTEN, 2: Reading.JSON, 3: Reading.WEB, 4: Reading.AS_WRITTEN}
    assert readings(data, "josé", "😀 😀") == [named, {5: Reading.WEB}]


def test_an_escape_in_a_text_that_is_looked_for_is_found_where_it_is_written_so() -> None:
    data = b"fish &amp; chips 50%25\n\\u0066ish &amp; chips 50%25\n"
    assert readings(data, "fish &amp; chips 50%25") == [{1: Reading.AS_WRITTEN, 2: Reading.JSON}]


def test_a_character_that_pieces_cut_is_read_whole_or_as_its_bytes_wherever_they_cut() -> None:
    data = b"x %F0%9F%98%80 %E2%82 %C3%28 %E9t%E9 %F0%9F%98 %ff%"
    wanted = ["x 😀 \u00e2\u201a \u00c3( été \u00f0\u0178\u02dc \u00ff%"]
    assert all(lines(data, *wanted, cut=cut) == [[1]] for cut in range(len(data)))


def test_names_of_files_are_read_in_the_same_ways() -> None:
    patterns = [one for one in map(pattern, ("José Roe", "nobody")) if one]
    assert in_name(patterns, "Jos%C3%A9%20Roe.pdf") == {0: Reading.WEB}
    assert in_name(patterns, "2 JOSÉ\nRoe \\u0026.txt") == {0: Reading.AS_WRITTEN}


NAMES = html.entities.codepoint2name
WAYS: list[Callable[[str], str]] = [
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    html.escape,
    lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    lambda text: "".join(f"&{NAMES[ord(one)]};" if ord(one) in NAMES else one for one in text),
    urllib.parse.quote,
    urllib.parse.quote_plus,
]
# What looks like an escape before all is written is resolved too; HTML has no controls and no unassigned characters.
PLAIN = st.text(
    st.characters(exclude_characters="&%\\", exclude_categories=["Cc", "Cs", "Cn"]), max_size=60
)


@given(
    PLAIN,
    PLAIN,
    st.lists(st.sampled_from(WAYS), min_size=1, max_size=3),
    st.integers(1, 7),
)
def test_what_the_web_writes_is_found(
    before: str, text: str, ways: list[Callable[[str], str]], cut: int
) -> None:
    text = text.strip()
    if pattern(text) is None:
        return
    written = before + "|" + text + "|"
    # JSON alone is resolved twice.
    for way in ways if set(ways) - set(WAYS[:2]) else ways[:2]:
        written = way(written)
    assert lines(written.encode(), text, cut=cut)[0]


@given(st.text())
def test_folding_keeps_lines_and_is_done_once(text: str) -> None:
    assert folded(text).count("\n") == text.count("\n")
    assert folded(folded(text)) == folded(text)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"],
)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_the_encodings_of_text_files_are_read(encoding: str, cut: int) -> None:
    assert lines("first\nJosé\n".encode(encoding), "josé", cut=cut) == [[2]]


def test_utf16_without_a_mark_that_is_long_or_has_few_other_letters_is_read() -> None:
    text = "first\n" + "Größe 김철수 und mehr\n" * 4_000 + "Jürgen Müller\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert lines(text.encode(encoding), "Jürgen Müller", cut=4_096) == [[4_002]]


def test_what_only_looks_like_utf16_is_read_as_it_is_too() -> None:
    numbers = b"".join(number.to_bytes(2, "little") for number in range(1, 200)) * 4
    assert lines(numbers + b"\nJane Roe\n", "jane roe", "nobody")[0]
    assert lines("José Roe\n".encode("cp1252") + "José Roe\n".encode(), "josé roe") == [[1, 2]]


def test_bytes_that_are_no_text_hide_nothing_after_them() -> None:
    assert lines(b"\xff\xfa\x00\n\xe9Jane Roe\xf0\n", "jane roe") == [[2]]


def test_lines_that_are_named_are_bounded_and_that_is_said() -> None:
    one = pattern("jane")
    assert one is not None
    found = Found()
    search = Search([one], found)
    _all(search.feed(b"Jane\n" * (LINES_MAX + 5)))
    _all(search.end())
    assert found.has_more
    assert sorted(found.lines[0]) == list(range(1, LINES_MAX + 1))


@pytest.mark.parametrize(
    "piece",
    [
        b"x",
        b"\\",
        b"\\u00e9",
        b"\n",
        b" ",
        "é".encode(),
        b"&",
        b"&#233;",
        b"&amp;",
        b"%",
        b"%C3%A9",
    ],
)
def test_memory_is_constant_also_for_one_line_without_an_end(piece: bytes) -> None:
    one = pattern("jane roe")
    assert one is not None
    search = Search([one], Found())
    data = piece * (256 * 1024 // len(piece))
    _all(search.feed(data))
    tracemalloc.start()
    try:
        for _ in range(8):
            _all(search.feed(data))
        _all(search.end())
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_text_of_spaces_and_marks_is_none() -> None:
    assert pattern(" \u0301\u200b\n") is None


A_LOT = "a " * 498
# As many as fill what is known of characters.
STRANGE = "".join(map(chr, range(0x20000, 0x27000)))
# Texts of which much is in the data again and again, as files that are written to slow a search down have them.
HOSTILE = {
    "overlaps": (b'\\"\\\\ ' + b"a " * 60_000, A_LOT),
    "long words": (b"\\\\ " + b"ab" * 60_000, "ab" * 450),
    "spaces": (b"\\\\ " + (b"a" + b" " * 63) * 2_000, A_LOT),
    "lines": (b"\\\\ " + b"a\n" * 60_000, A_LOT),
    "line ends": (b"\\\\ a" + b"\n" * 120_000, A_LOT),
    "escapes": (b"\\\\" * 60_000, "\\" * 500),
    "references": (b"&#" * 30_000 + b"&a" * 30_000 + b"&amp;" * 12_000, "&" * 500),
    "names": (b"".join(b"&a%d;" % number for number in range(15_000)), "&" * 500),
    "percents": (b"%25" * 20_000 + b"%f0%9f" * 10_000 + b"%u4e00%" * 8_000, "%" * 500),
    "all": (b"%255C%5Cu0026amp%3Bamp;%5C&#92;" * 4_000, "&" * 500),
    "numbers": (b"\\ud83d\\ude00" * 10_000, "\U0001f600" * 500),
    "expanded": ("\\\\ \ufdfa".encode() + "\ufdfa".encode() * 40_000, "\ufdfa" * 990),
    "unknown": (b"\\\\ " + STRANGE.encode(), A_LOT),
    "no text": (bytes(range(128, 256)) * 1_000, "\u00e9" * 500),
}
TEXTS = 20
# Calls of Python and C: a piece that is decoded or folded as a whole takes up to 700,000. Seconds would say more of
# the machine; those here are for work that is not linear.
STEP_CALLS = 60_000
STEP_SECONDS = 0.1


@pytest.mark.parametrize("name", HOSTILE)
def test_every_bit_of_work_is_short_and_all_of_it_is_linear_whatever_is_searched(name: str) -> None:
    data, text = HOSTILE[name]
    patterns = [pattern(text + chr(ord("b") + number)) for number in range(TEXTS)]
    folded(STRANGE)
    found = Found()
    search = Search([one for one in patterns if one], found)
    calls: list[int] = []
    seconds: list[float] = []

    def take(work: Iterator[None]) -> None:
        count, began = 0, time.thread_time()

        def counted(_frame: FrameType, event: str, _arg: object) -> None:
            nonlocal count
            count += event in {"call", "c_call"}

        is_last = False
        while not is_last:
            count = 0
            sys.setprofile(counted)
            try:
                is_last = next(work, work) is work
            finally:
                sys.setprofile(None)
            calls.append(count)
            seconds.append(time.thread_time() - began)
            began = time.thread_time()

    for start in range(0, len(data), PIECE_BYTES):
        take(search.feed(data[start : start + PIECE_BYTES]))
    take(search.end())
    print(name, max(calls), max(seconds), sum(seconds))
    assert max(calls) < STEP_CALLS, sorted(calls)[-10:]
    # One of them may have met a collection of garbage, or whatever else a busy machine does.
    assert sorted(seconds)[-2] < STEP_SECONDS, sorted(seconds)[-10:]
    assert sum(seconds) < 10.0, sum(seconds)


def test_a_text_that_overlaps_itself_is_found_in_each_line_where_it_begins() -> None:
    assert lines(b"a\na\na\na b\n", "a a b", "a a") == [[3], [1, 2, 3]]
    assert lines(b"a\na\na\na b\n", "a a b", "a a", cut=1) == [[3], [1, 2, 3]]
