"""HEAD on what needs no key: load balancers and monitors ask so."""

import pytest
from tests.api.test_authorization import PUBLIC_EXAMPLES
from tests.support.servers import Server

# What differs between two responses to the same request.
OWN = {"x-request-id", "openai-processing-ms", "date"}


@pytest.mark.parametrize("path", sorted(PUBLIC_EXAMPLES.values()))
def test_head_answers_as_get_does_without_the_body(server: Server, path: str) -> None:
    got = server.get(path)
    with server.connect() as connection:
        # The second request shows that nothing follows the first response's head.
        for method in ("HEAD", "GET"):
            connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            status, *lines = head.decode().rstrip().split("\r\n")
            assert status.split()[1] == str(got.status)
            headers = dict(line.split(": ", 1) for line in lines)
            expected = {name.lower(): value for name, value in got.headers}
            assert headers.keys() - {"connection"} == expected.keys() - {"connection"}
            for name in headers.keys() - OWN - {"connection"}:
                assert headers[name] == expected[name], name
        assert len(got.body) == int(expected["content-length"])


def test_head_with_http_1_0_ends_with_the_connection(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.0\r\n\r\n")
        received = b""
        while piece := connection.recv(4096):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\n")


def test_head_is_not_allowed_where_a_key_is_needed(server: Server) -> None:
    assert server.request("HEAD", "/v1/models").status == 401
    reply = server.request("HEAD", "/v1/models", key=server.owner_key)
    assert (reply.status, reply.header("allow")) == (405, "GET, POST")
