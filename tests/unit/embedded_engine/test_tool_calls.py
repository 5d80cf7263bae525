"""Calls in what a model says: found in each format, however it is cut, and only where there are some."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.embedded_engine.tool_calls import Call, CallReader, Piece
from tunewarden.tool_formats import FORMATS, HERMES, LLAMA, MISTRAL_LIST, MISTRAL_NAMED, ToolFormat

NAMES = frozenset({"f", "get-it"})
F = '{"name": "f", "arguments": {"a": "é"}}'
CALL = Call("f", '{"a": "é"}')


def read(found: ToolFormat, text: str, size: int, *, takes_one: bool = False) -> list[Piece]:
    """Read a text in parts of some characters; return text and calls in their order."""
    reader = CallReader(found, NAMES, takes_one=takes_one)
    pieces = [
        piece for at in range(0, len(text), size) for piece in reader.push(text[at : at + size])
    ]
    merged: list[Piece] = []
    for piece in [*pieces, *reader.flush()]:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


SAID: list[tuple[ToolFormat, str, list[Piece]]] = [
    (HERMES, f"<tool_call>\n{F}\n</tool_call>", [CALL]),
    (
        HERMES,
        f"I look.\n\n<tool_call>{F}</tool_call>\n<tool_call>{F}</tool_call>\n",
        ["I look.", CALL, CALL],
    ),
    (HERMES, f"<tool_call>{F}</tool_call> and now?", [CALL, " and now?"]),
    # The end mark is missing, as it is if it is a stop string.
    (HERMES, f"<tool_call>{F}", [CALL]),
    # Models write line breaks into strings, and objects as strings.
    (
        HERMES,
        '<tool_call>{"name": "f", "arguments": {"a": "x\ny"}}</tool_call>',
        [Call("f", '{"a": "x\\ny"}')],
    ),
    (
        HERMES,
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": \\"é\\"}"}</tool_call>',
        [CALL],
    ),
    (HERMES, '<tool_call>{"name": "f"}</tool_call>', [Call("f", "{}")]),
    (MISTRAL_LIST, f"[TOOL_CALLS] [{F}, {F}]", [CALL, CALL]),
    (MISTRAL_LIST, f'So:[TOOL_CALLS][{F[:-1]}, "id": "123456789"}}]', ["So:", CALL]),
    (MISTRAL_NAMED, '[TOOL_CALLS]f[ARGS]{"a": "é"}', [CALL]),
    (
        MISTRAL_NAMED,
        '[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"a": "é"}[TOOL_CALLS]get-it[ARGS]{}',
        [CALL, Call("get-it", "{}")],
    ),
    (LLAMA, '{"name": "f", "parameters": {"a": "é"}}', [CALL]),
    (LLAMA, '\n{"type": "function", "name": "f", "parameters": {"a": "é"}}', [CALL]),
    (LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": "é"}}', [CALL]),
    (
        LLAMA,
        '{"name": "f", "parameters": {"a": "é"}}; {"name": "get-it", "parameters": {}}',
        [CALL, Call("get-it", "{}")],
    ),
]
NO_CALLS: list[tuple[ToolFormat, str]] = [
    (HERMES, "Hello! \n"),
    (HERMES, " \n"),
    (HERMES, "a < b, <tool_call, </tool_call>"),
    (HERMES, "<tool_call>{not json}</tool_call> and on \n"),
    (HERMES, '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "other", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": ["f"], "arguments": {}}</tool_call>'),
    (HERMES, f"<tool_call>{F}{F}</tool_call>"),
    (HERMES, "<tool_call></tool_call>"),
    (HERMES, '<tool_call>{"name": "f", "argum'),
    (HERMES, "<tool_call>" + "[" * 3000 + "</tool_call>"),
    (MISTRAL_LIST, "[TOOL_CALLS] none"),
    (MISTRAL_LIST, "[TOOL_CALLS] []"),
    (MISTRAL_NAMED, "[TOOL_CALLS]f"),
    (MISTRAL_NAMED, '[TOOL_CALLS]f[ARGS]{"a"'),
    (LLAMA, '{"city": "Paris", "weather": "is it as sunny as in the days before?"}'),
    (LLAMA, '{"name": "Paris", "country": "France"}'),
    (LLAMA, '{"a'),
    (LLAMA, 'The object {"name": "f", "parameters": {}} is none.'),
    (LLAMA, "<|python_tag|>f.call(a=1)"),
]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("found", "text", "pieces"), SAID)
def test_calls_are_found_and_text_around_them_is_kept(
    found: ToolFormat, text: str, pieces: list[Piece], size: int
) -> None:
    assert read(found, text, size) == pieces


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize(("found", "text"), NO_CALLS)
def test_what_is_no_call_is_text_as_it_is(found: ToolFormat, text: str, size: int) -> None:
    assert read(found, text, size) == [text]


@pytest.mark.parametrize(("found", "text", "pieces"), SAID)
def test_one_call_is_taken_and_what_follows_it_left_out(
    found: ToolFormat, text: str, pieces: list[Piece]
) -> None:
    first = next(at for at, piece in enumerate(pieces) if isinstance(piece, Call))
    assert read(found, text, 3, takes_one=True) == pieces[: first + 1]


def test_a_half_of_a_pair_of_surrogates_stays_escaped() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"a": "\\ud83d"}}</tool_call>'
    (call,) = read(HERMES, text, 5)
    assert isinstance(call, Call)
    assert call.arguments.encode() == b'{"a": "\\ud83d"}'


def test_text_leaves_before_it_could_become_a_mark() -> None:
    reader = CallReader(HERMES, NAMES)
    assert reader.push("Hello <b") == ["Hello <b"]
    assert reader.push("> <tool") == [">"]
    assert reader.push("s>") == [" <tools>"]


parts = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        F,
        "f",
        " ",
        "\n",
        "{",
        "}",
        "[",
        "]",
    ]
)


@given(
    st.sampled_from(FORMATS), st.lists(parts | st.text(max_size=4), max_size=12), st.integers(1, 9)
)
def test_any_text_is_read_alike_however_it_is_cut(
    found: ToolFormat, texts: list[str], size: int
) -> None:
    text = "".join(texts)
    pieces = read(found, text, size)
    assert pieces == read(found, text, len(text) or 1)
    for piece in pieces:
        if isinstance(piece, Call):
            arguments: Any = json.loads(piece.arguments)
            assert isinstance(arguments, dict)
            assert piece.name in NAMES
    if not any(isinstance(piece, Call) for piece in pieces):
        assert "".join(str(piece) for piece in pieces) == text
