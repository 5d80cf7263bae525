"""The one function from an error to the wire."""

import json

from tunewarden import problems
from tunewarden.errors import Error, Kind


def test_every_kind_of_error_has_a_status() -> None:
    assert set(problems.WIRE) == set(Kind)


def test_an_error_says_all_four_keys_and_whether_to_try_again() -> None:
    error = Error(
        Kind.UNAVAILABLE, "Busy.", param="model", code="engine_busy", retry_after_seconds=0.5
    )
    status, headers, body = problems.wire(error)
    told = {"message": "Busy.", "type": "server_error", "param": "model", "code": "engine_busy"}
    assert status == 503
    assert json.loads(body) == {"error": told}
    assert headers == [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (b"retry-after-ms", b"500"),
        (b"x-should-retry", b"true"),
    ]


def test_what_repeating_does_not_change_is_not_to_be_repeated() -> None:
    assert (b"x-should-retry", b"false") in problems.wire(Error(Kind.CONFLICT, "No.")).headers
    assert (b"www-authenticate", b"Bearer") in problems.wire(
        Error(Kind.UNAUTHENTICATED, "Who?")
    ).headers


def test_a_bug_shows_nothing_of_itself() -> None:
    status, _, body = problems.wire(ValueError("SELECT secret FROM rows"))
    assert status == 500
    assert json.loads(body)["error"]["message"] == problems.INTERNAL


def test_the_last_answer_of_a_connection_says_so() -> None:
    head, _, body = problems.last_answer(Error(Kind.INVALID, "What?"), "req_1").partition(
        b"\r\n\r\n"
    )
    assert head.splitlines()[0] == b"HTTP/1.1 400 Bad Request"
    assert {b"connection: close", b"x-request-id: req_1"} <= set(head.splitlines())
    assert json.loads(body)["error"]["message"] == "What?"
