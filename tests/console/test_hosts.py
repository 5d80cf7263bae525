"""Where the console may be opened, what may send its forms, and how often somebody may guess, on a server of its own."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.console import Visitor
from tests.support.servers import Server, WithoutTorch

PUBLIC = "models.example"
NAMED = "console.example:8443"
# What a browser sends over TLS, which a proxy in front takes off.
OVER_TLS = {"sec-fetch-site": "none"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("hosts") / "data"
    settings = {"public_url": f"https://{PUBLIC}", "console_hosts": NAMED}
    with servers.serving(data, workers=1, settings=settings, kind=WithoutTorch) as running:
        yield running


@pytest.fixture
def visitor(server: Server) -> Visitor:
    return Visitor(server)


def test_a_worker_loads_templates_only_when_a_page_is_asked_for(server: Server) -> None:
    """The first test on this server: an unused console costs no memory."""
    (worker,) = server.running("tunewarden.server.worker")
    maps = Path(f"/proc/{worker}/maps")
    for path in ("/", "/readyz", "/v1/models"):
        server.get(path, key=server.owner_key)
    assert "markupsafe" not in maps.read_text("utf-8")
    Visitor(server).get("/console/sign-in")
    assert "markupsafe" in maps.read_text("utf-8")


@pytest.mark.parametrize(
    "host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "LOCALHOST:1", "localhost"]
)
def test_the_machine_itself_needs_no_tls(server: Server, visitor: Visitor, host: str) -> None:
    given = {"host": host.format(server.address[1])}
    assert visitor.get("/console/sign-in", given).status == 200


@pytest.mark.parametrize("host", [PUBLIC, f"{PUBLIC}:443", NAMED])
def test_a_name_of_the_operators_is_opened_over_tls_with_a_cookie_of_this_host(
    server: Server, visitor: Visitor, host: str
) -> None:
    assert visitor.get("/console/sign-in", {"host": host, **OVER_TLS}).status == 200
    form = {"key": server.owner_key, "next": ""}
    reply = visitor.post("/console/sign-in", form, {"host": host, "origin": f"https://{host}"})
    cookie = reply.header("set-cookie")
    assert cookie is not None
    assert cookie.startswith("__Host-tunewarden=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert visitor.get("/console", {"host": host, **OVER_TLS}).status == 200
    # The cookie of one way is none of the other.
    assert visitor.get("/console").status == 303


@pytest.mark.parametrize("sent", [{}, {"origin": f"http://{PUBLIC}", **OVER_TLS}])
def test_without_tls_the_page_says_what_it_needs(
    server: Server, visitor: Visitor, sent: Mapping[str, str]
) -> None:
    reply = visitor.get("/console/sign-in", {"host": PUBLIC, **sent})
    assert reply.status == 403
    assert b"needs TLS" in reply.body
    assert b"<form" not in reply.body


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1:8800",
        "",
        f"evil.{PUBLIC}",
        f"{PUBLIC}:1",
    ],
)
def test_under_another_name_nothing_is_shown(visitor: Visitor, host: str) -> None:
    for path in ("/console", "/console/sign-in", "/console/static/console.css"):
        reply = visitor.get(path, {"host": host, **OVER_TLS})
        assert reply.status in {400, 403}, host
        assert b"<form" not in reply.body


@pytest.mark.parametrize(
    "sent",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://{host}"},
        {"sec-fetch-site": "", "origin": "null"},
    ],
)
def test_no_form_of_another_site_is_taken(
    server: Server, visitor: Visitor, sent: dict[str, str]
) -> None:
    signed_in = Visitor(server, server.owner_key)
    given = {name: value.format(host=visitor.host) for name, value in sent.items()}
    for one, path in ((visitor, "/console/sign-in"), (signed_in, "/console/sign-out")):
        reply = one.post(path, {"key": server.owner_key}, given)
        assert (reply.status, reply.header("set-cookie")) == (403, None)
    assert signed_in.get("/console").status == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{port}", "https://tw.example"),
        ("127.0.0.1:{port}", "https://127.0.0.1:{port}"),
        ("127.0.0.1:{port}", "http://127.0.0.1:1"),
        (PUBLIC, f"https://{PUBLIC}:8443"),
        (PUBLIC, "https://evil.example"),
        (PUBLIC, "https://"),
    ],
)
def test_an_origin_is_compared_also_where_the_browser_says_more(
    server: Server, host: str, origin: str
) -> None:
    """A proxy that sends a Host of its own would get a cookie that goes without TLS too."""
    port = server.address[1]
    given = {"host": host.format(port=port), "origin": origin.format(port=port)}
    reply = Visitor(server).post("/console/sign-in", {"key": server.owner_key, "next": ""}, given)
    assert (reply.status, reply.header("set-cookie")) == (403, None)
    assert b"proxy_set_header Host" in reply.body


def test_the_public_address_may_be_sent_as_the_origin_of_a_name_without_its_port(
    server: Server,
) -> None:
    form = {"key": server.owner_key, "next": ""}
    for given in (
        {"host": f"{PUBLIC}:443", "origin": f"https://{PUBLIC}"},
        {"host": PUBLIC.upper(), "origin": f"https://{PUBLIC}"},
        {"host": NAMED, "origin": f"https://{NAMED}"},
        {"host": PUBLIC, "origin": "null"},
    ):
        assert Visitor(server).post("/console/sign-in", form, given).status == 303, given


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded"]
)
def test_a_proxy_that_hides_the_host_is_told_what_to_pass(
    server: Server, visitor: Visitor, name: str
) -> None:
    for host in ("127.0.0.1:{}", "localhost:{}"):
        given = {"host": host.format(server.address[1]), name: "https"}
        reply = visitor.get("/console/sign-in", given)
        assert reply.status == 403
        assert b"proxy_set_header Host" in reply.body
        assert b"<form" not in reply.body
    assert (
        visitor.get("/console/sign-in", {"host": PUBLIC, name: "https", **OVER_TLS}).status == 200
    )


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_none_of_the_consoles(server: Server, method: str) -> None:
    for path in ("/console", "/console/models", "/console/sign-in"):
        assert server.request(method, path).status == 405


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/console/models", "GET, HEAD"),
        ("DELETE", "/console/system", "GET, HEAD"),
        ("PUT", "/console/retention", "GET, HEAD, POST"),
        ("PATCH", "/console/sign-out", "POST"),
        ("DELETE", "/console/nothing", None),
        ("POST", "/console/models", "GET, HEAD"),
        ("GET", "/console/holds/hold_nobody/lift", "POST"),
        ("POST", "/console/sign-in/nothing", None),
        ("GET", "/console/sign-out", "POST"),
        ("POST", "/console/static/console.css", "GET, HEAD"),
    ],
)
def test_a_method_that_a_page_does_not_answer_is_told_which_it_does(
    server: Server, method: str, path: str, allowed: str | None
) -> None:
    """RFC 9110, 15.5.6."""
    visitor = Visitor(server, server.owner_key)
    headers = {"cookie": str(visitor.cookie), "sec-fetch-site": "same-origin"}
    reply = server.request(method, path, headers=headers)
    assert (reply.status, reply.header("allow")) == (405 if allowed else 404, allowed)
    if method == "GET":
        assert server.request("GET", path).status in {303, 405}, "who is not signed in is led there"


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://{host}", 303), ("http://evil.example", 403), ("null", 403), (None, 403)],
)
def test_a_browser_that_does_not_say_where_a_form_is_from_must_send_its_origin(
    server: Server, visitor: Visitor, origin: str | None, status: int
) -> None:
    body = f"key={server.owner_key}&next=".encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if origin is not None:
        headers["origin"] = origin.format(host=visitor.host)
    sent = server.request("POST", "/console/sign-in", headers=headers, body=body)
    assert sent.status == status


def test_who_guesses_is_slowed_down_and_who_has_a_key_is_not(server: Server) -> None:
    found = {Visitor(server).post("/console/sign-in", {"key": "x"}).status for _ in range(200)}
    assert found == {401, 429}
    Visitor(server, server.owner_key)
