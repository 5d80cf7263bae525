"""Long bodies are read beside the event loop, and come out as the short ones do."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewarden.errors import Error, Kind
from tunewarden.gateway.inference_request import CONTAINERS_MAX, VALUES_MAX, InferenceRequest
from tunewarden.gateway.long_bodies import WAITING_MAX, LongBodies

MEBIBYTE = 1024 * 1024
LOOP_SECONDS = 0.010
BEGIN = b'{"model":"m","a":"\\u0041","x":['
LONG = {
    "values": BEGIN + b"[]," * (10 * MEBIBYTE) + b"[]]}",
    "fields": BEGIN + b"1]" + b"".join(b',"%d":1' % n for n in range(MEBIBYTE)) + b"}",
    "text": BEGIN + b'"' + b"a" * (30 * MEBIBYTE) + b'"]}',
}


@pytest.fixture
def bodies() -> Iterator[LongBodies]:
    reading = LongBodies()
    yield reading
    reading.close()


def _read(bodies: LongBodies, body: bytes) -> InferenceRequest:
    async def run() -> InferenceRequest:
        return await bodies.read("org", body)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", LONG)
def test_the_loop_is_never_held_for_long(bodies: LongBodies, kind: str) -> None:
    """By the processor time of the loop's thread: that is the same on a busy machine."""

    async def run() -> float:
        began = time.thread_time()
        with contextlib.suppress(Error):  # that it has too many values
            await bodies.read("org", LONG[kind])
        return time.thread_time() - began

    taken = asyncio.run(run())
    print(f"{kind}: {taken * 1000:.2f} ms of the loop's thread")
    assert taken < LOOP_SECONDS


@pytest.mark.parametrize("kind", LONG)
def test_control_reading_on_the_loop_holds_it(kind: str) -> None:
    began = time.thread_time()
    InferenceRequest.parse(LONG[kind]).for_engine("m_1", ask_usage=True)
    assert time.thread_time() - began > LOOP_SECONDS


pairs = st.lists(
    st.tuples(
        st.sampled_from(
            ['"model"', r'"mod\u0065l"', '"x"', '"stream"', '"stream_options"', '"store"']
        ),
        st.sampled_from(['"m"', "true", "null", "{}", '{"include_usage":true}', '["a,[:{\\"b"]']),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=300)
@given(pairs=pairs)
def test_taken_apart_and_put_together_it_is_what_a_short_one_is(
    pairs: list[tuple[str, str]],
) -> None:
    body = ("{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}").encode()
    try:
        short = InferenceRequest.parse(body)
    except Error:
        with pytest.raises(Error):
            InferenceRequest.taken_apart(body)
        return
    read, rest = InferenceRequest.taken_apart(body)
    whole = InferenceRequest.of_parts(
        read.model,
        rest,
        is_stream=read.is_stream,
        options=read.options,
        store=read.store,
        output_max=read.output_max,
        drawn=read.draw(),
    )
    assert whole.output_max == short.output_max
    assert whole.draw() == short.draw()
    for asks, forbids in ((True, False), (False, False), (False, True)):
        assert _sent(whole, asks=asks, forbids=forbids) == _sent(short, asks=asks, forbids=forbids)


def _sent(request: InferenceRequest, *, asks: bool, forbids: bool) -> object:
    try:
        sent = request.for_engine("m_1", ask_usage=asks, forbids_store=forbids)
    except Error as error:
        return error.message
    # That one of these is null says nothing.
    return _without_null(json.loads(sent))


def _without_null(fields: dict[str, object]) -> dict[str, object]:
    return {
        k: v for k, v in fields.items() if v is not None or k not in {"stream_options", "store"}
    }


def test_values_are_counted_outside_of_strings_only(bodies: LongBodies) -> None:
    text = json.dumps({"model": "m", "x": ',[{:\\"' * VALUES_MAX}).encode()
    assert _read(bodies, text).model == "m"
    with pytest.raises(Error, match="too many values"):
        _read(bodies, json.dumps({"model": "m", "x": [1] * (VALUES_MAX + 1)}).encode())
    with pytest.raises(Error, match="too many arrays and objects"):
        _read(bodies, json.dumps({"model": "m", "x": [[]] * CONTAINERS_MAX}).encode())
    with pytest.raises(Error, match="could not parse"):
        _read(bodies, b"{" * 1000)


def test_a_reader_that_dies_is_replaced(bodies: LongBodies) -> None:
    assert _read(bodies, b'{"model":"m"}').model == "m"
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pid = next(int(line.split()[0]) for line in listed.splitlines() if "body_reader" in line)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Error) as caught:
        _read(bodies, b'{"model":"m"}')
    assert caught.value.kind is Kind.UNAVAILABLE
    assert _read(bodies, b'{"model":"n"}').model == "n"


def test_one_organization_does_not_fill_the_queue(bodies: LongBodies) -> None:
    async def run() -> str:
        hog = [bodies.read("a", LONG["text"]) for _ in range(WAITING_MAX)]
        with pytest.raises(Error) as caught:
            bodies.read("a", b"{}")
        assert caught.value.kind is Kind.RATE_LIMITED
        other = await bodies.read("b", b'{"model":"m"}')
        await asyncio.gather(*hog)
        return other.model

    assert asyncio.run(run()) == "m"


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_tokens": 50, "n": 3}, 150),
        ({"max_tokens": 50, "n": 2, "best_of": 5}, 250),
        ({"max_tokens": 50, "prompt": "a"}, 50),
        ({"max_tokens": 50, "prompt": ["a", "b", "c"]}, 150),
        ({"max_tokens": 50, "prompt": [[1, 2], [3]]}, 100),
        ({"max_tokens": 50, "prompt": [1, 2, 3]}, 50),
        ({"max_tokens": 50, "prompt": [], "n": None}, 50),
        ({"max_tokens": 50, "prompt": {"a": []}, "n": "x"}, 50),
        ({"prompt": ["a", "b"]}, None),
    ],
)
def test_tokens_are_reserved_for_every_prompt_and_choice(
    fields: dict[str, object], most: int | None
) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    assert InferenceRequest.parse(body).output_max == most
