"""What is checked of an ID token: signature, issuer, audience, times, nonce. By joserfc and Authlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tunewarden.errors import Error, Kind

# Signatures by a key pair. A secret that both sides have, or none at all, proves nothing here.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
KEY_PAIRS = frozenset({"RSA", "EC", "OKP"})
LEEWAY_SECONDS = 60
LENGTH_MAX = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a token must say. `algorithms` are the provider's."""

    issuer: str
    client_id: str
    nonce: str
    algorithms: Sequence[str]
    now: int  # seconds
    access_token: str | None = None


def check(token: str, keys: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
    """Return the claims of a token that is what was expected. Raises Error(UNAUTHENTICATED), which quotes nothing of it."""
    allowed = [one for one in ALGORITHMS if one in expected.algorithms]
    listed = keys.get("keys")
    pairs = [
        one
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("kty") in KEY_PAIRS and one.get("use", "sig") == "sig"
    ]
    if not allowed or not pairs or len(token) > LENGTH_MAX:
        raise refused()
    try:
        decoded = jwt.decode(token, KeySet.import_key_set({"keys": pairs}), algorithms=allowed)
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            options={
                "iss": {"essential": True, "value": expected.issuer},
                "aud": {"essential": True, "value": expected.client_id},
            },
            params={
                "nonce": expected.nonce,
                "client_id": expected.client_id,
                "access_token": expected.access_token,
            },
        )
        claims.validate(now=expected.now, leeway=LEEWAY_SECONDS)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        # Without the library's error, which may quote the token.
        raise refused(type(error).__name__) from None
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise refused()
    return dict(claims)


def refused(why: str = "") -> Error:
    """Return the error of a token that is not what was expected; `why` is a name of this program's, not of the token."""
    said = (
        "The identity provider's answer is not valid for this sign-in"
        + (f" ({why})" if why else "")
        + ". Begin anew. If that does not help, the operator must compare 'sso_issuer' and 'sso_client_id' with the"
        " provider's settings, and the clocks of both."
    )
    return Error(Kind.UNAUTHENTICATED, said, code="sso_invalid_token")
