"""What is asked of an identity provider, and what is made of odd answers."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tunewarden.clock import SystemClock
from tunewarden.config import Config
from tunewarden.console.guard import Way
from tunewarden.console.oidc import setup, wire
from tunewarden.console.oidc.attempt import AFTER_LENGTH_MAX, Attempt, Purpose
from tunewarden.console.oidc.provider import Provider
from tunewarden.errors import Error, Kind


class Odd(BaseHTTPRequestHandler):
    """Answers each path with what a test has put there."""

    answers: ClassVar[dict[str, tuple[int, bytes, dict[str, str]]]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, body, headers = self.answers.get(self.path, (404, b"", {}))
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def odd() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Odd.answers.clear()
    Odd.asked.clear()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (302, b"", {"location": "/elsewhere"}),
        (500, b"a text that is not shown", {}),
        (200, b"a text that is not shown", {}),
        (200, b"[]", {}),
        (200, b"[" * 100_000, {}),
        (200, b" " * (wire.BYTES_MAX + 1), {}),
        (200, b"{", {"content-length": "9"}),
    ],
    ids=["redirect", "failure", "text", "list", "deep", "long", "cut"],
)
def test_an_odd_answer_is_an_error_that_quotes_nothing(
    odd: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    Odd.answers |= {"/": (status, body, headers), "/elsewhere": (200, b"{}", {})}
    with pytest.raises(Error) as failed:
        wire.get(f"{odd}/")
    assert failed.value.kind is Kind.UNAVAILABLE
    assert "a text" not in failed.value.message
    assert Odd.asked == ["/"]


@pytest.mark.parametrize(
    "address",
    [
        "http://login.example/x",
        "file:///etc/passwd",
        "ftp://login.example/",
        "https://user@login.example/",
        "https://",
        "https://login.example/a b",
        "javascript:alert(1)",
        "https://[::1",
    ],
)
def test_no_other_address_is_asked_or_led_to(address: str) -> None:
    assert not wire.is_safe(address)
    with pytest.raises(Error):
        wire.get(address)


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://evil.example/"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": None},
        {"jwks_uri": 7},
    ],
    ids=str,
)
def test_a_discovery_document_that_is_another_s_or_leads_astray_is_refused(
    odd: str, changes: dict[str, Any]
) -> None:
    found = {
        "issuer": odd,
        "authorization_endpoint": f"{odd}/auth",
        "token_endpoint": f"{odd}/token",
        "jwks_uri": f"{odd}/keys",
    }
    where = "/.well-known/openid-configuration"
    config = Config(sso_issuer=odd, sso_client_id="x")
    provider, attempt = Provider(config, SystemClock()), Attempt.new(Purpose.SIGN_IN, "")
    Odd.answers[where] = (200, json.dumps(found | changes).encode(), {})
    with pytest.raises(Error) as refused:
        provider.address(attempt, "http://127.0.0.1/x")
    assert refused.value.kind is Kind.MISCONFIGURED
    Odd.answers[where] = (200, json.dumps(found).encode(), {})
    for _ in range(3):
        assert provider.address(attempt, "http://127.0.0.1/x").startswith(f"{odd}/auth?")
    assert Odd.asked == [where] * 2  # believed for a while


def test_an_attempt_is_what_its_cookie_says_and_nothing_else_is_one() -> None:
    way = Way("models.example", is_secure=True)
    attempt = Attempt.new(Purpose.PROOF, "/console/models?state=active")
    cookie = attempt.set_cookie(way)
    assert cookie.startswith("__Host-tunewarden-sso=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600")
    value = cookie.partition("=")[2].partition(";")[0]
    assert Attempt.of_cookie(value) == attempt
    assert len({attempt.secret, attempt.state, attempt.nonce, attempt.verifier}) == 4
    assert attempt.is_of(attempt.state)
    assert not attempt.is_of("")
    assert not attempt.is_of("\N{SNOWMAN}")
    for other in ("", value[1:], value.replace("proof", "other"), value + "!", value + "=a"):
        assert Attempt.of_cookie(other) is None
    assert Attempt.new(Purpose.SIGN_IN, "/" * (AFTER_LENGTH_MAX + 1)).after == ""


def test_what_is_missing_for_single_sign_on_is_named(tmp_path: Path) -> None:
    complete = Config(sso_issuer="https://login.example", sso_client_id="x", sso_organization="y")
    assert not setup.is_wanted(Config())
    assert setup.missing(complete) is None
    assert "sso_client_id" in str(setup.missing(replace(complete, sso_client_id="none")))
    assert "sso_organization" in str(setup.missing(replace(complete, sso_organization="none")))
    nowhere = replace(complete, sso_client_secret_file=str(tmp_path / "none"))
    assert "sso_client_secret_file" in str(setup.missing(nowhere))
