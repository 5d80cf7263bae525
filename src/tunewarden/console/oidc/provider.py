"""The identity provider, as one worker knows it: where it is asked, and whom it vouches for."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from tunewarden.clock import Clock
from tunewarden.config import Config
from tunewarden.console.oidc import id_token, wire
from tunewarden.console.oidc.attempt import Attempt, Purpose
from tunewarden.console.oidc.id_token import Expected
from tunewarden.console.oidc.wire import Login
from tunewarden.errors import Error, Kind
from tunewarden.identity import addresses
from tunewarden.identity.session_rows import LIFE_MICROS, SECOND
from tunewarden.identity.sso import Vouched
from tunewarden.sso_settings import NONE

# How long its discovery document is believed. Its keys are asked for at each sign-in: they may be changed at any time.
KNOWN_SECONDS = 300.0
DISCOVERY = "/.well-known/openid-configuration"
SECONDS_MAX = 10**10


@dataclass(frozen=True, slots=True)
class Discovered:
    """What is used of its discovery document."""

    authorization: str
    token: str
    keys: str
    userinfo: str | None
    algorithms: tuple[str, ...]
    takes_basic: bool
    names_issuer: bool  # on the way back (RFC 9207)


@dataclass(frozen=True, slots=True)
class CameBack:
    """What the browser brought back."""

    code: str
    issuer: str | None


class Known:
    """What this worker has discovered, of one issuer: other settings come with another start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: tuple[str, float, Discovered] | None = None

    def of(self, issuer: str, clock: Clock) -> Discovered:
        """Return what an issuer's discovery document says, asked for if that was long ago. Raises Error(UNAVAILABLE)."""
        with self._lock:
            now = clock.monotonic()
            found = self._found
            if found is None or found[0] != issuer or now - found[1] >= KNOWN_SECONDS:
                said = wire.get(issuer.rstrip("/") + DISCOVERY)
                found = self._found = issuer, now, _checked(said, issuer)
            return found[2]


_known = Known()


class Provider:
    """Its methods block: call them in threads."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def address(self, attempt: Attempt, redirect: str) -> str:
        """Return where a browser begins to sign in. Raises Error(UNAVAILABLE)."""
        query = {
            "response_type": "code",
            "client_id": self._config.sso_client_id,
            "redirect_uri": redirect,
            "scope": "openid email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": create_s256_code_challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
        if attempt.purpose is Purpose.PROOF:
            # Who was there some hours ago proves nothing.
            query |= {"prompt": "login", "max_age": "0"}
        else:
            # As long as a session lasts. A provider that is asked this says when it was.
            query["max_age"] = str(LIFE_MICROS // SECOND)
        where = self._discovered().authorization
        return f"{where}{'&' if '?' in where else '?'}{urlencode(query)}"

    def vouched(self, attempt: Attempt, came: CameBack, redirect: str) -> Vouched:
        """Return whom the provider vouches for. Raises Error(UNAUTHENTICATED), Error(UNAVAILABLE)."""
        known = self._discovered()
        if came.issuer is None and known.names_issuer:
            raise id_token.refused("no issuer")
        if came.issuer is not None and came.issuer != self._config.sso_issuer:
            raise id_token.refused("another issuer")
        fields = {
            "grant_type": "authorization_code",
            "code": came.code,
            "redirect_uri": redirect,
            "code_verifier": attempt.verifier,
        }
        tokens = wire.post(known.token, fields, self._login(known))
        signed, access = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(signed, str):
            raise id_token.refused("no ID token")
        expected = Expected(
            issuer=self._config.sso_issuer,
            client_id=self._config.sso_client_id,
            nonce=attempt.nonce,
            algorithms=known.algorithms,
            now=int(self._clock.now().timestamp()),
            access_token=access if isinstance(access, str) else None,
        )
        claims = id_token.check(signed, wire.get(known.keys), expected)
        about = self._about(known, claims, expected.access_token)
        return Vouched(_verified(about), _authenticated_at(claims))

    def _about(
        self, known: Discovered, claims: dict[str, Any], access: str | None
    ) -> dict[str, Any]:
        """Return where the address is: in the token, or what the provider says with it of the same person."""
        if "email" in claims or known.userinfo is None or access is None:
            return claims
        about = wire.get(known.userinfo, bearer=access)
        if about.get("sub") != claims["sub"]:
            raise id_token.refused("another person")
        return about

    def _discovered(self) -> Discovered:
        return _known.of(self._config.sso_issuer, self._clock)

    def _login(self, known: Discovered) -> Login:
        return Login(self._config.sso_client_id, secret(self._config), by_header=known.takes_basic)


def secret(config: Config) -> str | None:
    """Return this server's secret at the provider, or None. Raises Error(MISCONFIGURED) if its file cannot be read."""
    if config.sso_client_secret_file == NONE:
        return None
    try:
        lines = Path(config.sso_client_secret_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = "The file that 'sso_client_secret_file' names cannot be read. The operator must look at it."
        raise Error(Kind.MISCONFIGURED, said) from error
    return lines[0].strip() if lines else ""


def _checked(found: dict[str, Any], issuer: str) -> Discovered:
    if found.get("issuer") != issuer:
        raise _misconfigured("names another issuer than 'sso_issuer': write it exactly as there")
    authorization, token, keys = (
        _place(found, name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
    )
    userinfo = found.get("userinfo_endpoint")
    algorithms = _texts(found, "id_token_signing_alg_values_supported", "RS256")
    logins = _texts(found, "token_endpoint_auth_methods_supported", "client_secret_basic")
    return Discovered(
        authorization,
        token,
        keys,
        userinfo=userinfo if isinstance(userinfo, str) and wire.is_safe(userinfo) else None,
        algorithms=algorithms,
        takes_basic="client_secret_basic" in logins,
        names_issuer=found.get("authorization_response_iss_parameter_supported") is True,
    )


def _texts(found: dict[str, Any], name: str, otherwise: str) -> tuple[str, ...]:
    listed = found.get(name)
    return tuple(map(str, listed)) if isinstance(listed, list) and listed else (otherwise,)


def _place(found: dict[str, Any], name: str) -> str:
    address = found.get(name)
    if not isinstance(address, str) or not wire.is_safe(address):
        raise _misconfigured("lacks an address, or names one that does not begin with https://")
    return address


def _verified(about: dict[str, Any]) -> str:
    """Return the address of a person that the provider has verified. Raises Error(FORBIDDEN)."""
    email = about.get("email")
    if not isinstance(email, str) or about.get("email_verified") is not True:
        said = (
            "Your identity provider does not say that it has verified your e-mail address. Verify it there, or ask who"
            " runs it to send 'email' and 'email_verified'."
        )
        raise Error(Kind.FORBIDDEN, said, code="sso_unverified_email")
    try:
        return addresses.normalized(email)
    except Error as error:
        said = "The e-mail address that your identity provider sent cannot be one of a user here."
        raise Error(Kind.FORBIDDEN, said, code="sso_unknown_user") from error


def _authenticated_at(claims: dict[str, Any]) -> int | None:
    at = claims.get("auth_time")
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 < at < SECONDS_MAX:
        return None
    return int(at * SECOND)


def _misconfigured(what: str) -> Error:
    said = f"The identity provider's discovery document {what}. The operator must look at the settings of 'sso_…'."
    return Error(Kind.MISCONFIGURED, said, code="sso_misconfigured")
