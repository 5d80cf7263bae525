"""Behind a proxy that shares its connections between clients, nobody puts a request before another client's."""

import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.test_http_framing import plain_uvicorn
from tests.support import proxies, servers
from tests.support.servers import Server

VICTIMS = 4
OFFERS = ("x", "h2c", "websocket")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.serving(tmp_path_factory.mktemp("proxied") / "data", workers=1) as running:
        yield running


def _request(
    address: tuple[str, int], method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> bytes:
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def _attack(address: tuple[str, int], offer: str) -> bytes:
    """Without a key, send as a body what would be the begin of the next client's request; return the answer."""
    begun = b"GET /v1/models/odd-1 HTTP/1.1\r\nHost: x\r\nX-Swallow: "
    # More than one read, so that the body does not come with its head; parsers skip empty lines.
    body = b"\r\n" * 300_000 + begun
    headers = {"Connection": "Upgrade", "Upgrade": offer}
    return _request(address, "POST", "/v1/chat/completions", body, headers)


def _answers_to_the_victim(address: tuple[str, int], key: str) -> list[bytes]:
    headers = {"Authorization": f"Bearer {key}"}
    return [_request(address, "GET", "/v1/models/odd-2", None, headers) for _ in range(VICTIMS)]


@pytest.mark.parametrize("kind", proxies.KINDS)
def test_a_stranger_cannot_change_what_the_next_client_asks(
    behind: Server, kind: str, tmp_path: Path
) -> None:
    with proxies.in_front_of(behind.address[1], kind, tmp_path) as address:
        for offer in OFFERS:
            assert b"Missing bearer" in _attack(address, offer)
            time.sleep(0.1)
            for answer in _answers_to_the_victim(address, behind.owner_key):
                assert b"odd-2" in answer, answer
                assert b"odd-1" not in answer


@pytest.mark.parametrize("kind", proxies.KINDS)
def test_the_attack_changes_what_uvicorn_as_it_comes_is_asked(kind: str, tmp_path: Path) -> None:
    """The control: the same attack, the same proxy."""
    changed = 0
    with plain_uvicorn() as behind, proxies.in_front_of(behind[1], kind, tmp_path) as address:
        for offer in OFFERS:
            _attack(address, offer)
            time.sleep(0.1)
            answers = _answers_to_the_victim(address, "sk-victim")
            changed += answers.count(b"GET odd-1 by Bearer sk-victim")
    print(f"{kind} {changed} requests of the victim were changed")
    assert changed


@pytest.mark.parametrize("kind", proxies.KINDS)
def test_a_request_that_offers_an_upgrade_is_answered_through_a_proxy(
    behind: Server, kind: str, tmp_path: Path
) -> None:
    with proxies.in_front_of(behind.address[1], kind, tmp_path) as address:
        for offer in OFFERS:
            headers = {
                "Authorization": f"Bearer {behind.owner_key}",
                "Connection": "Upgrade, HTTP2-Settings",
                "Upgrade": offer,
                "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
            }
            body = b'{"model": "odd-3", "messages": []}'
            answer = _request(address, "POST", "/v1/chat/completions", body, headers)
            assert b"`odd-3` does not exist" in answer
