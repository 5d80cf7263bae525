"""Where a source is."""

import pytest

from tunewarden.errors import Error
from tunewarden.migration import addresses, deadlines


def test_openai_and_azure_differ_in_paths_and_headers() -> None:
    openai = addresses.parse("https://api.openai.com/v1/")
    assert openai.target(("files", "a/b"), {"after": None, "limit": 2}) == "/v1/files/a%2Fb?limit=2"
    assert openai.headers("key") == {"authorization": "Bearer key"}
    assert openai.target(openai.chat("ft:x"), {}) == "/v1/chat/completions"
    azure = addresses.parse(
        "https://acme.openai.azure.com", azure_version="2024-10-21", deployments={"ft:x": "mine"}
    )
    assert azure.target(("models",), {}) == "/openai/models?api-version=2024-10-21"
    assert azure.headers("key") == {"api-key": "key"}
    assert azure.target(azure.chat("ft:x"), {}).startswith(
        "/openai/deployments/mine/chat/completions?"
    )
    assert azure.chat("ft:y")[1] == "ft:y"


def test_a_key_is_sent_in_the_plain_to_this_machine_only() -> None:
    assert addresses.parse("http://127.0.0.1:8800").root == "/v1"
    with pytest.raises(Error, match="not encrypted"):
        addresses.parse("http://api.openai.com/v1")


@pytest.mark.parametrize(
    "url",
    [
        "api.openai.com",
        "ftp://x",
        "https://",
        "https://x:y",
        "https://x?a=b",
        "https://x/\u00e9",
        "https://x/ y",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Error, match="no address"):
        addresses.parse(url)


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(Error) as raised:
        addresses.parse("https://me:secret@api.openai.com/v1")
    assert "secret" not in raised.value.message


def test_the_days_on_which_families_stop() -> None:
    days = {
        base: deadlines.shutdown_of(base) for base in ("gpt-4o-mini-2024-07-18", "gpt-4.1", "gpt-4")
    }
    assert [day and day.isoformat() for day in days.values()] == ["2027-01-14", "2027-01-14", None]
    assert deadlines.base_of("ft:gpt-4o:acme::x") == "gpt-4o"
    assert deadlines.base_of("curie:ft-acmeco-2021-03-03-21-44-20") == "curie"
