"""The model's name both ways, and the usage that an answer states."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewarden.errors import Error, Kind
from tunewarden.gateway.inference_request import InferenceRequest
from tunewarden.gateway.rewriting import (
    EVENT_BYTES_MAX,
    Renaming,
    StreamRewriter,
    usage_of,
)

ENGINE = "m_0123456789abcdefghijklmn"
PUBLIC = "ft:base:org:a.b:Ab12Cd34"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
texts = st.lists(st.text(), min_size=1, max_size=6)


def _events(words: list[str], newline: str, *, usage: bool) -> bytes:
    chunks: list[dict[str, Any]] = [
        {"model": ENGINE, "choices": [{"delta": {"content": word}}], "usage": None}
        for word in words
    ]
    if usage:
        chunks.append({"model": ENGINE, "choices": [], "usage": _usage()})
    lines = [json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    return "".join(f"data: {line}{newline * 2}" for line in [*lines, "[DONE]"]).encode()


def _usage() -> dict[str, object]:
    return {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "details": {"x": 1}}


def _cut(data: bytes, at: list[int]) -> list[bytes]:
    borders = [0, *sorted(one % (len(data) + 1) for one in at), len(data)]
    return [data[one:other] for one, other in pairwise(borders)]


@given(
    words=texts,
    at=st.lists(st.integers(0, 10_000), max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
    hides=st.booleans(),
)
def test_a_stream_comes_out_the_same_wherever_it_is_cut(
    words: list[str], at: list[int], newline: str, hides: bool
) -> None:
    rewriter = StreamRewriter(Renaming(ENGINE, PUBLIC), hides_usage=hides)
    pieces = [rewriter.feed(piece) for piece in _cut(_events(words, newline, usage=True), at)]
    assert all(piece == b"" or piece.endswith(b"\n\n") for piece in pieces), "whole events only"
    events = (b"".join(pieces) + rewriter.rest()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert {chunk["model"] for chunk in chunks} == {PUBLIC}
    heard = [chunk["choices"][0]["delta"]["content"] for chunk in chunks if chunk["choices"]]
    assert heard == words
    assert len(chunks) == len(words) + (not hides)
    assert rewriter.usage.counted == (3, 4, 0)


@given(words=texts, lost=st.integers(1, 3))
def test_the_last_event_needs_no_blank_line(words: list[str], lost: int) -> None:
    rewriter = StreamRewriter(Renaming(ENGINE, PUBLIC), hides_usage=True)
    whole = _events(words, "\n", usage=False)
    shown = rewriter.feed(whole[: -min(lost, 2)]) + rewriter.rest()
    assert shown.endswith(b"data: [DONE]\n\n")
    assert rewriter.rest() == b""


def test_a_stream_that_ends_in_its_usage_still_hides_it() -> None:
    rewriter = StreamRewriter(Renaming(ENGINE, PUBLIC), hides_usage=True)
    chunk = {"model": ENGINE, "choices": [], "usage": _usage()}
    assert rewriter.feed(b"data: " + json.dumps(chunk).encode()) == b""
    assert rewriter.rest() == b""
    assert rewriter.usage.counted == (3, 4, 0)


def test_an_event_without_end_is_broken_off() -> None:
    rewriter = StreamRewriter(Renaming(ENGINE, PUBLIC), hides_usage=True)
    assert rewriter.feed(b"x" * EVENT_BYTES_MAX) == b""
    with pytest.raises(ConnectionError):
        rewriter.feed(b"x")


@given(text=st.text(), value=json_values, separators=st.sampled_from([(",", ":"), (", ", ": ")]))
def test_what_a_model_says_is_never_changed(
    text: str, value: object, separators: tuple[str, str]
) -> None:
    said = f'{text}"model":"{ENGINE}"{text}'
    answer = {"model": ENGINE, "choices": [{"message": {"content": said}}], "x": value}
    body = json.dumps(answer, separators=separators).encode()
    shown = json.loads(Renaming(ENGINE, PUBLIC).apply(body))
    assert shown == {**answer, "model": PUBLIC}


@given(engine=st.text(min_size=1), public=st.text(min_size=1))
def test_any_name_becomes_any_name(engine: str, public: str) -> None:
    body = json.dumps({"model": engine}, ensure_ascii=False).encode()
    if "\x7f" in engine or any(ord(c) < 32 for c in engine):
        return  # written as an escape in more than one way
    assert json.loads(Renaming(engine, public).apply(body)) == {"model": public}


@given(fields=st.dictionaries(st.text(), json_values, max_size=5))
def test_a_request_reaches_the_engine_as_it_came_but_for_the_name(
    fields: dict[str, object],
) -> None:
    sent = {**fields, "model": PUBLIC, "stream": False}
    request = InferenceRequest.parse(json.dumps(sent).encode())
    assert request.model == PUBLIC
    forwarded = json.loads(request.for_engine(ENGINE, ask_usage=True))
    assert forwarded == {**sent, "model": ENGINE}


SPELLINGS = ['"model"', r'"mod\u0065l"', '"x"', '"stream"', '"stream_options"', r'"a\"model"']
VALUES = [
    json.dumps(PUBLIC),
    json.dumps(PUBLIC).replace("f", r"\u0066"),
    "true",
    "null",
    "{}",
    json.dumps({"model": PUBLIC, "stream_options": None}),
    json.dumps(f'"model":"{PUBLIC}"'),
    json.dumps('"model'),
    '"é\\\\"',
]


@settings(max_examples=400)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(SPELLINGS), st.sampled_from(VALUES)), min_size=1, max_size=5
    ),
    colon=st.sampled_from([":", ": ", " : "]),
    end=st.sampled_from(["}", " }\n"]),
)
def test_the_engine_reads_what_the_gateway_read_however_it_is_written(
    pairs: list[tuple[str, str]], colon: str, end: str
) -> None:
    """Names twice, escaped, nested, in strings: the last of equal names counts, as everywhere."""
    body = "{" + ", ".join(f"{name}{colon}{value}" for name, value in pairs) + end
    sent = json.loads(body)
    if not isinstance(sent.get("model"), str) or not sent["model"]:
        with pytest.raises(Error):
            InferenceRequest.parse(body.encode())
        return
    request = InferenceRequest.parse(body.encode())
    assert request.model == sent["model"]
    forwarded = request.for_engine(ENGINE, ask_usage=True)
    expected = {**sent, "model": ENGINE}
    options = sent.get("stream_options")
    if sent.get("stream") is True and (options is None or isinstance(options, dict)):
        expected["stream_options"] = {**(options or {}), "include_usage": True}
    assert json.loads(forwarded) == expected
    names = [name for name, _ in json.loads(forwarded, object_pairs_hook=list)]
    assert names.count("model") == 1
    assert names.count("stream_options") <= max(
        1, [json.loads(n) for n, _ in pairs].count("stream_options")
    )


@pytest.mark.parametrize(
    ("options", "wants", "asked"),
    [
        (None, False, {"include_usage": True}),
        ({}, False, {"include_usage": True}),
        ({"include_usage": False}, False, {"include_usage": True}),
        ({"include_usage": True, "x": 1}, True, {"include_usage": True, "x": 1}),
        ("nonsense", False, "nonsense"),
    ],
)
def test_a_streams_usage_is_always_asked_for(options: object, wants: bool, asked: object) -> None:
    sent = {"model": "x", "stream": True, "stream_options": options}
    request = InferenceRequest.parse(json.dumps(sent).encode())
    assert request.wants_usage is wants
    forwarded = json.loads(request.for_engine(ENGINE, ask_usage=True))
    assert forwarded["stream_options"] == asked
    untouched = json.loads(request.for_engine(ENGINE, ask_usage=False))
    assert untouched["stream_options"] == options


@pytest.mark.parametrize(
    "store", ["", '"store":true', '"store":null', '"store": false', r'"stor\u0065":true']
)
@pytest.mark.parametrize("rest", ["", '"x":"\\"store\\":true"', '"x":{"store":true,"model":"m"}'])
def test_an_engine_that_must_not_store_is_told_so_once(store: str, rest: str) -> None:
    body = "{" + ",".join(filter(None, ['"model":"m"', store, rest])) + "}"
    request = InferenceRequest.parse(body.encode())
    forwarded = request.for_engine(ENGINE, ask_usage=False, forbids_store=True)
    pairs = dict(json.loads(body)) | {"model": ENGINE, "store": False}
    assert json.loads(forwarded) == pairs
    names = [name for name, _ in json.loads(forwarded, object_pairs_hook=list)]
    assert names.count("store") == 1
    kept = json.loads(request.for_engine(ENGINE, ask_usage=False))
    assert kept == json.loads(body) | {"model": ENGINE}


@given(body=st.binary(max_size=100))
def test_garbage_is_an_invalid_request(body: bytes) -> None:
    kind = None
    try:
        InferenceRequest.parse(body)
    except Error as error:
        kind = error.kind
    assert kind is Kind.INVALID


@given(body=st.binary(max_size=100) | json_values.map(lambda one: json.dumps(one).encode()))
def test_usage_of_garbage_is_none(body: bytes) -> None:
    assert usage_of(body).counted == (0, 0, 0)


usages = st.fixed_dictionaries(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)}
)
told = st.recursive(
    usages
    | st.none()
    | st.sampled_from([',"usage":{"prompt_tokens":7}}', "\\", '"usage":{}', ',"usage":{', "}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", '"usage', '"usage":{', "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=500)
@given(
    st.dictionaries(st.sampled_from(["usage", "choices", 'a,"usage":{']), told),
    st.sampled_from([(",", ":"), (", ", ": "), (",\n", " : ")]),
    st.sampled_from(["", "\n"]),
)
def test_usage_is_what_a_reader_of_the_whole_answer_finds(
    fields: dict[str, Any], separators: tuple[str, str], rest: str
) -> None:
    between, colon = separators
    written = [
        json.dumps(name) + colon + json.dumps(value, separators=separators)
        for name, value in fields.items()
    ]
    body = "{" + between.join(written) + "}" + rest
    found = json.loads(body).get("usage")
    of_it = found if isinstance(found, dict) else {}
    expected = [of_it.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
    assert usage_of(body.encode()).counted == (*expected, 0)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 0)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4, 0)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0, 0)),
        (None, (0, 0, 0)),
        ("many", (0, 0, 0)),
        ({"prompt_tokens": 2**63, "completion_tokens": 2}, (0, 0, 0)),  # more than a database holds
        ({"prompt_tokens": -5}, (0, 0, 0)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 0, 4)),
        ({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 10, "x": 1}}, (9, 0, 9)),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, (9, 0, 0)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": None}}, (9, 0, 0)),
    ],
)
def test_usage_is_read_by_either_name(usage: object, counted: tuple[int, int, int]) -> None:
    assert usage_of(json.dumps({"usage": usage}).encode()).counted == counted


def test_an_answer_that_is_nested_too_deep_to_be_read_is_passed_on() -> None:
    deep = (
        b'{"model":"m_1","usage":{"prompt_tokens":3},"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    )
    assert usage_of(deep).counted == (0, 0, 0)
    rewriter = StreamRewriter(Renaming("m_1", PUBLIC), hides_usage=True)
    event = b"data: " + deep + b"\n\n"
    assert rewriter.feed(event) == event.replace(b"m_1", PUBLIC.encode())


def test_usage_of_the_responses_api_is_counted_and_passed_on() -> None:
    said = {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 3, "output_tokens": 4}},
    }
    event = b"event: response.completed\ndata: " + json.dumps(said).encode() + b"\n\n"
    rewriter = StreamRewriter(Renaming(ENGINE, PUBLIC), hides_usage=True)
    assert rewriter.feed(event) == event
    assert rewriter.usage.counted == (3, 4, 0)
