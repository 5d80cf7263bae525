"""URLs of endpoints: one strict form, and none that two parsers read in two ways."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.errors import Error
from tunewarden.webhooks import urls


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "authority"),
    [
        ("https://Example.com", "example.com", 443, "/", "example.com"),
        ("https://example.com:8443/a?b=c", "example.com", 8443, "/a?b=c", "example.com:8443"),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443, "/", "[2606:4700::1111]"),
        ("https://1.1.1.1:1024/", "1.1.1.1", 1024, "/", "1.1.1.1:1024"),
        ("http://localhost:8080?x", "localhost", 8080, "/?x", "localhost:8080"),
        ("https://hooks_1.example.com/", "hooks_1.example.com", 443, "/", "hooks_1.example.com"),
        (
            "https://xn--bcher-kva.example/",
            "xn--bcher-kva.example",
            443,
            "/",
            "xn--bcher-kva.example",
        ),
    ],
)
def test_what_a_url_means(text: str, host: str, port: int, path: str, authority: str) -> None:
    found = urls.parse(text)
    assert (found.host, found.port, found.path, found.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://example.com/",
        "//example.com/",
        "https:/example.com",
        "https:example.com",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com#@127.0.0.1/",
        "https://example.com/#fragment",
        "https://example.com /",
        "https://example.com/a b",
        "https://example.com/\r\nx: y",
        "https://example.com/\x00",
        "https://exa\tmple.com/",
        "https://bücher.example/",
        "https://例え.jp/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.0.0.1.0x7f/",
        "https://1.2.3.4.5/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[::ffff:1.2.3]/",
        "https://example.com./",
        "https://.example.com/",
        "https://-example.com/",
        "https://example..com/",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:80/",
        "https://example.com:1023/",
        "https://example.com:65536/",
        "https://example.com:/",
        "https://example.com:+443/",
        "https://example.com:٤٤٣/",
        f"https://example.com/{'a' * 2048}",
    ],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(Error) as refused:
        urls.parse(text)
    assert (refused.value.param, refused.value.code) == ("url", "invalid_webhook_url")
    assert "password" not in refused.value.message.replace("a user or a password", "")


PIECES = st.sampled_from(
    ["https://", "http://", "example.com", "127.0.0.1", "[::1]", "@", ":", "443", "/", "\\", "?", "#", "%", "\r", "\n", ".", "a", " ", "[", "]", "0x7f"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=9).map("".join))
def test_what_is_parsed_means_the_same_to_another_parser(text: str) -> None:
    try:
        found = urls.parse(text)
    except Error:
        return
    other = urlsplit(text)
    assert other.hostname == found.host
    assert (other.port or urls.DEFAULT_PORTS[other.scheme]) == found.port
    assert (other.username, other.password, other.fragment) == (None, None, "")
    assert "\r" not in found.path
    assert " " not in found.path
