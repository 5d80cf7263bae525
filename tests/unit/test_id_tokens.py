"""ID tokens: what is no answer to this sign-in is refused, whoever signed it."""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwk, jwt

from tunewarden.console.oidc import id_token
from tunewarden.console.oidc.id_token import LEEWAY_SECONDS, Expected
from tunewarden.errors import Error, Kind

NOW = 1_800_000_000
KEY = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
OTHER = jwk.RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
PUBLIC = {"keys": [KEY.as_dict(private=False)]}
CLAIMS = {
    "iss": "https://login.example",
    "aud": "tunewarden",
    "sub": "ada",
    "iat": NOW,
    "exp": NOW + 300,
    "nonce": "the nonce",
}
EXPECTED = Expected(
    issuer="https://login.example",
    client_id="tunewarden",
    nonce="the nonce",
    algorithms=("RS256", "HS256", "none"),
    now=NOW,
    access_token="an access token",
)


def _signed(changes: dict[str, Any], key: Any = KEY, algorithm: str = "RS256") -> str:
    claims = {name: one for name, one in (CLAIMS | changes).items() if one is not None}
    return jwt.encode({"alg": algorithm, "kid": "one"}, claims, key, algorithms=[algorithm])


def test_a_token_that_is_as_expected_is_accepted() -> None:
    assert id_token.check(_signed({}), PUBLIC, EXPECTED) == CLAIMS
    several = {"aud": ["tunewarden", "another"], "azp": "tunewarden"}
    assert id_token.check(_signed(several), PUBLIC, EXPECTED)["azp"] == "tunewarden"
    id_token.check(_signed({"exp": NOW - LEEWAY_SECONDS + 1}), PUBLIC, EXPECTED)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": "https://login.example/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": ["tunewarden", "another"]},
        {"aud": None},
        {"azp": "another"},
        {"exp": NOW - LEEWAY_SECONDS - 1},
        {"exp": None},
        {"exp": "never"},
        {"iat": NOW + 3600},
        {"iat": None},
        {"nbf": NOW + 3600},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"at_hash": "of another access token"},
    ],
    ids=str,
)
def test_a_token_that_says_something_else_is_refused(changes: dict[str, Any]) -> None:
    _is_refused(_signed(changes))


def _encoded(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")


def _by_hand(algorithm: str, secret: bytes | None) -> str:
    parts = ({"alg": algorithm, "kid": "one"}, CLAIMS)
    text = b".".join(_encoded(json.dumps(one).encode()) for one in parts)
    mark = b"" if secret is None else hmac.digest(secret, text, "sha256")
    return b".".join([text, _encoded(mark)]).decode()


@pytest.mark.parametrize(
    "make",
    [
        lambda: _by_hand("none", None),
        lambda: _by_hand("HS256", KEY.as_pem(private=False)),
        lambda: _by_hand("HS256", b"a secret + of / this server"),
        lambda: _signed({}, OTHER),
        lambda: _signed({})[:-4] + "AAAA",
        lambda: _signed({}, algorithm="RS512"),
        lambda: "a.b",
        lambda: "\N{SNOWMAN}",
        lambda: "a" * (id_token.LENGTH_MAX + 1),
    ],
)
def test_a_token_that_the_provider_did_not_sign_is_refused(make: Callable[[], str]) -> None:
    _is_refused(make())


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"keys": None},
        {"keys": [7]},
        {"keys": [{"kty": "RSA"}]},
        {"keys": [{"kty": "oct", "k": "AA"}]},
    ],
    ids=str,
)
def test_no_key_is_no_proof(keys: dict[str, Any]) -> None:
    _is_refused(_signed({}), keys)


def _is_refused(token: str, keys: dict[str, Any] = PUBLIC) -> None:
    with pytest.raises(Error) as refused:
        id_token.check(token, keys, EXPECTED)
    assert refused.value.kind is Kind.UNAUTHENTICATED
    assert token[:40] not in refused.value.message
