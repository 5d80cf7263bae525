"""Whole characters only, and nothing of a stop string."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tunewarden.embedded_engine.text import Detokenizer, StopText, piece_bytes


def decode(tokens: Sequence[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", "replace")


@given(st.text())
def test_detokenizing_byte_by_byte_gives_the_text_in_whole_characters(text: str) -> None:
    detokenizer = Detokenizer(decode)
    parts = [detokenizer.push(byte) for byte in text.encode()]
    parts.append(detokenizer.flush())
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)
        assert "".join(parts) == text


def test_an_unfinished_character_never_leaves() -> None:
    detokenizer = Detokenizer(decode)
    assert [detokenizer.push(byte) for byte in "a€".encode()[:-1]] == ["a", "", ""]
    assert detokenizer.flush() == ""


def test_endless_noise_is_released() -> None:
    detokenizer = Detokenizer(decode)
    assert "".join(detokenizer.push(0x80) for _ in range(100))


@given(
    st.lists(st.text(alphabet="abc", max_size=4), max_size=12),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=4),
)
def test_stop_text_cuts_at_the_first_stop_wherever_pieces_break(
    pieces: list[str], stops: list[str]
) -> None:
    stop = StopText(stops)
    out = "".join(stop.push(piece) for piece in pieces)
    whole = "".join(pieces)
    # The first stop to be complete wins; among those complete with one piece, the leftmost.
    seen, cut = "", None
    for piece in pieces:
        seen += piece
        places = [seen.find(one) for one in stops if one in seen]
        if places:
            cut = min(places)
            break
    if cut is None:
        assert not stop.is_found
        assert out + stop.flush() == whole
    else:
        assert stop.is_found
        assert out == whole[:cut]
        assert stop.push("more") == stop.flush() == ""


@given(st.text(alphabet="ab", max_size=20), st.text(alphabet="ab", min_size=1, max_size=5))
def test_no_beginning_of_a_stop_string_leaves_before_it_is_decided(text: str, stop: str) -> None:
    cutter, out, seen = StopText([stop]), "", ""
    for letter in text:
        seen += letter
        out += cutter.push(letter)
        assert not any(stop.startswith(seen[at:]) for at in range(len(out)))
        if cutter.is_found:
            break


def test_pieces_name_their_bytes() -> None:
    assert piece_bytes("Ġhi", " hi") == list(b" hi")
    assert piece_bytes("âĤ", "\ufffd") == [0xE2, 0x82]
    assert piece_bytes("<0xE2>", "\ufffd") == [0xE2]
