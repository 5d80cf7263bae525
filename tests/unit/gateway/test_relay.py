"""How a stream ends that an error cuts, in the form of its API."""

import json

import pytest

from tunewarden.engine_protocol import paths
from tunewarden.errors import Error, Kind
from tunewarden.gateway.relay import Relay
from tunewarden.gateway.rewriting import (
    EVENTS_OF_CHAT,
    EVENTS_OF_COMPLETIONS,
    EVENTS_OF_RESPONSES,
    Events,
    Renaming,
)

EVENTS = {b"content-type": b"text/event-stream"}
DELETED = Error(Kind.NOT_FOUND, "The model was deleted.", code="model_deleted")
NAMES = Renaming("m_1", "ft:base:org::1")


def _begun(*, is_responses: bool, is_chunked: bool = False) -> Relay:
    events = EVENTS_OF_RESPONSES if is_responses else EVENTS_OF_CHAT
    return Relay(NAMES, 200, EVENTS, is_chunked=is_chunked, hides_usage=True, events=events)


def test_a_chat_ends_with_an_error_object() -> None:
    relay = _begun(is_responses=False)
    relay.feed(b'data: {"sequence_number":5}\n\n', is_end=False)
    event = relay.error_events(DELETED)
    assert event.startswith(b'data: {"error":')
    assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "model_deleted"


@pytest.mark.parametrize("spelled", ['"sequence_number":41', '"sequence_number": 41'])
def test_a_response_ends_with_its_next_event(spelled: str) -> None:
    relay = _begun(is_responses=True)
    text = json.dumps('"sequence_number":77')
    events = f'event: x\ndata: {{{spelled},"delta":{text}}}\n\nevent: y\ndata: {{"sequ'
    assert relay.feed(events.encode(), is_end=False)
    name, data = relay.error_events(DELETED).decode().strip().split("\n")
    assert name == "event: error"
    told = json.loads(data.removeprefix("data: "))
    error = told.pop("error")
    assert error == {
        "message": DELETED.message,
        "type": "invalid_request_error",
        "param": None,
        "code": "model_deleted",
    }
    assert told == {
        "type": "error",
        "sequence_number": 42,
        "code": "model_deleted",
        "message": DELETED.message,
        "param": None,
    }


def test_a_response_that_has_only_begun_ends_with_its_first_event() -> None:
    event = _begun(is_responses=True, is_chunked=True).error_events(DELETED)
    assert b'"sequence_number":0' in event
    assert event.endswith(b"\r\n0\r\n\r\n")


def test_the_usage_of_a_response_is_counted() -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    response = {"model": "m_1", "usage": usage}
    relay = _begun(is_responses=True)
    event = json.dumps({"type": "response.completed", "response": response})
    shown = relay.feed(f"event: response.completed\ndata: {event}\n\n".encode(), is_end=True)
    assert relay.tokens == (3, 4, 0)
    assert shown is not None
    assert b'"model":"ft:base:org::1"' in shown
    whole = Relay(NAMES, 200, {}, is_chunked=False, hides_usage=True, events=EVENTS_OF_RESPONSES)
    whole.feed(json.dumps(response).encode(), is_end=True)
    assert whole.tokens == (3, 4, 0)


CHUNK = 'data: {"model":"m_1","choices":[{"index":0,"delta":{"content":"\\"delta\\""}}],"usage":null}\n\n'
LONG = CHUNK.replace("delta\\", "delta, and more\\")
ROLE = 'data: {"model":"m_1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TOLD = 'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":7,"completion_tokens":5}}\n\n'


@pytest.mark.parametrize(
    ("events", "told", "tokens"),
    [
        ("", None, (0, 0, 0)),
        (ROLE, b"12", (12, 0, 0)),
        (ROLE + 3 * CHUNK, None, (0, 3, 0)),
        (ROLE + 3 * CHUNK + CHUNK[:-1], b"12", (12, 3, 0)),
        (ROLE + CHUNK + TOLD, b"12", (7, 5, 0)),
        (ROLE + CHUNK + LONG + CHUNK + LONG, None, (0, 4, 0)),
        (ROLE + CHUNK, b"-5", (0, 1, 0)),
        (ROLE + CHUNK, b"1" * 5000, (0, 1, 0)),
    ],
)
def test_of_an_unfinished_stream_is_counted_what_was_told_or_seen(
    events: str, told: bytes | None, tokens: tuple[int, int, int]
) -> None:
    headers = EVENTS if told is None else {**EVENTS, paths.INPUT_TOKENS: told}
    relay = Relay(NAMES, 200, headers, is_chunked=False, hides_usage=True)
    for piece in (events[:40].encode(), events[40:].encode()):  # the second has the last events
        relay.feed(piece, is_end=False)
    assert relay.tokens_so_far() == tokens
    assert relay.tokens is None


@pytest.mark.parametrize(
    ("events", "event"),
    [
        (EVENTS_OF_COMPLETIONS, 'data: {"choices":[{"index":0,"text":" a"}]}\n\n'),
        (
            EVENTS_OF_RESPONSES,
            'event: response.output_text.delta\ndata: {"delta":"a","sequence_number":%d}\n\n',
        ),
    ],
)
def test_each_api_has_its_events_with_text(events: Events, event: str) -> None:
    relay = Relay(NAMES, 200, EVENTS, is_chunked=True, hides_usage=True, events=events)
    for number in range(events.opening, events.opening + 4):
        relay.feed(event.replace("%d", str(number)).encode(), is_end=False)
    assert relay.tokens_so_far() == (0, 4, 0)


def test_of_an_answer_that_is_no_stream_nothing_is_known_before_its_end() -> None:
    relay = Relay(NAMES, 200, {}, is_chunked=False, hides_usage=True)
    relay.feed(b'{"usage":', is_end=False)
    assert relay.tokens_so_far() == (0, 0, 0)
