"""What a web page may do with the server: CORS by the setting `cors_origins`, and the page at `/`."""

import http.client
from collections.abc import Iterator

import pytest
from tests.support import servers
from tests.support.servers import Reply, Server

from tunewarden.errors import Error
from tunewarden.settings import origins

PAGE = "https://chat.example"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("browsers") / "data"
    settings = {"cors_origins": f"{PAGE}, http://localhost:3000"}
    with servers.serving(data, workers=1, settings=settings) as running:
        yield running


def ask(server: Server, method: str, path: str, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request(method, path, headers=headers, body=b"{}" if method == "POST" else None)
    response = connection.getresponse()
    reply = Reply(response.status, response.getheaders(), response.read())
    connection.close()
    return reply


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/v1/files/file-1/content"])
def test_a_preflight_is_answered_before_authentication(open_server: Server, path: str) -> None:
    reply = ask(open_server, "OPTIONS", path, PREFLIGHT)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("access-control-allow-origin") == PAGE
    assert (
        reply.header("access-control-allow-headers") == PREFLIGHT["access-control-request-headers"]
    )
    assert "POST" in (reply.header("access-control-allow-methods") or "")
    assert reply.header("vary") == "origin"
    assert reply.header("access-control-allow-credentials") is None


def test_a_page_reads_answers_and_the_headers_that_clients_read(open_server: Server) -> None:
    key = {"authorization": f"Bearer {open_server.owner_key}", "origin": PAGE}
    for method, path, headers, status in (
        ("GET", "/v1/models", key, 200),
        ("GET", "/v1/models", {"origin": PAGE}, 401),
        ("POST", CHAT, key, 400),
        ("POST", CHAT, {"origin": PAGE}, 401),
        ("GET", "/healthz", {"origin": PAGE}, 200),
    ):
        reply = ask(open_server, method, path, headers)
        assert reply.status == status
        assert reply.header("access-control-allow-origin") == PAGE
        exposed = (reply.header("access-control-expose-headers") or "").split(", ")
        assert {"x-request-id", "retry-after"} <= set(exposed)


def test_another_page_is_not_allowed(open_server: Server) -> None:
    other = {**PREFLIGHT, "origin": "https://evil.example"}
    key = {"authorization": f"Bearer {open_server.owner_key}", "origin": "https://evil.example"}
    for reply in (
        ask(open_server, "OPTIONS", CHAT, other),
        ask(open_server, "POST", CHAT, key),
        ask(open_server, "GET", "/v1/models", key),
    ):
        assert reply.header("access-control-allow-origin") is None
        assert reply.header("vary") == "origin"


def test_an_origin_is_remembered_with_the_head_that_is_repeated(open_server: Server) -> None:
    """A connection keeps its last request's head, parsed: the next request with it has the same origin."""
    connection = http.client.HTTPConnection(*open_server.address, timeout=30)
    headers = {"authorization": f"Bearer {open_server.owner_key}"}
    for origin, allowed in (
        (PAGE, PAGE),
        (PAGE, PAGE),
        ("https://evil.example", None),
        (None, None),
    ):
        connection.request(
            "POST", CHAT, b"{}", {**headers, **({"origin": origin} if origin else {})}
        )
        response = connection.getresponse()
        response.read()
        assert response.getheader("access-control-allow-origin") == allowed
    connection.close()


def test_no_page_is_allowed_by_default(server: Server) -> None:
    assert ask(server, "OPTIONS", CHAT, PREFLIGHT).status == 401
    reply = ask(server, "GET", "/healthz", {"origin": PAGE})
    assert reply.header("access-control-allow-origin") is None
    assert reply.header("vary") is None


@pytest.mark.parametrize("text", ["chat.example", "https://chat.example/", "https://A.example", ""])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(Error, match="cors_origins"):
        origins(text)


def test_any_page_may_be_allowed() -> None:
    assert origins("*") == {"*"}
    assert origins("none") == frozenset()


def test_the_page_for_people_says_what_this_is_and_loads_nothing(server: Server) -> None:
    page = server.get("/")
    assert page.status == 200
    assert (page.header("content-type") or "").startswith("text/html")
    assert (page.header("content-security-policy") or "").startswith("default-src 'none'")
    text = page.body.decode()
    assert 'href="/docs"' in text
    assert 'href="/readyz"' in text
    assert "<script" not in text
    assert "http" not in text


def test_health_is_answered_where_vllm_answers_it(server: Server) -> None:
    assert server.get("/health").json == {"status": "ok"}
