"""The request line is strict wherever a read ends; httptools alone takes other protocols and more blanks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.errors import Error
from tunewarden.gateway.parsing import RequestParser

GET = b"GET /a HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n"
POST = b"POST /b?c HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
OFFER = b"POST /u HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc"
OLD = b"\r\n\nGET /o HTTP/1.0\r\n\r\n"
TARGETS = {GET: b"/a", POST: b"/b?c", OFFER: b"/u", OLD: b"/o"}
ODD = (
    b"GET /a RTSP/1.0\r\nhost: a\r\n\r\n",
    b"SOURCE /a ICE/1.0\r\nhost: a\r\n\r\n",
    b"GET /a  HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET  /a HTTP/1.1\r\nhost: a\r\n\r\n",
)


class Targets:
    """Receives requests, and notes their targets."""

    def __init__(self) -> None:
        self.parser = RequestParser(self)
        self.found: list[bytes] = []

    def on_message_begin(self) -> None:
        pass

    def on_headers_complete(self) -> None:
        self.found.append(self.parser.url)

    def on_body(self, body: bytes) -> None:
        pass

    def on_message_complete(self) -> None:
        pass

    def read(self, data: bytes, cuts: list[int]) -> list[bytes]:
        places = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
        for begin, end in itertools.pairwise(places):
            self.parser.feed(data[begin:end])
        return self.found


cuts = st.lists(st.integers(0, 2**16), max_size=6)


@given(messages=st.lists(st.sampled_from([GET, POST, OFFER]), max_size=5), cuts=cuts)
def test_strict_requests_are_taken_wherever_reads_end(
    messages: list[bytes], cuts: list[int]
) -> None:
    messages.append(OLD)
    found = Targets().read(b"".join(messages), cuts)
    assert found == [TARGETS[message] for message in messages]


@given(
    before=st.lists(st.sampled_from([GET, POST, OFFER]), max_size=3),
    odd=st.sampled_from(ODD),
    cuts=cuts,
)
def test_odd_request_lines_are_refused_wherever_reads_end(
    before: list[bytes], odd: bytes, cuts: list[int]
) -> None:
    targets = Targets()
    with pytest.raises(Error, match="request line"):
        targets.read(b"".join(before) + odd, cuts)
    assert targets.found == [TARGETS[message] for message in before]


def test_a_head_in_single_bytes_is_kept_no_longer_than_it_is_unfinished() -> None:
    targets = Targets()
    for at in range(len(POST)):
        targets.parser.feed(POST[at : at + 1])
    assert targets.found == [b"/b?c"]
    assert not targets.parser._lines._earlier


def test_a_strict_line_elsewhere_in_the_read_does_not_help() -> None:
    targets = Targets()
    with pytest.raises(Error, match="request line"):
        targets.parser.feed(b"GET /a RTSP/1.0\r\nx:GET /a HTTP/1.0\r\n\r\n")
    assert not targets.found
