"""The settings of single sign-on: the identity provider at which people sign in to the console."""

import re
from dataclasses import dataclass
from typing import Final

from tunewarden.errors import Error, Kind
from tunewarden.settings import setting

NONE: Final = "none"
# A path is allowed, because providers have one for each tenant.
ISSUER = re.compile(
    r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
    r"|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
CLIENT_ID = re.compile(r"[\x21-\x7e]{1,256}")


def issuer(text: str) -> str:
    """Check the address of an identity provider. Raises Error(INVALID)."""
    if text != NONE and not ISSUER.fullmatch(text):
        said = (
            "Setting 'sso_issuer' must be an address such as https://login.example, without query, or none. Only on this"
            f" machine's loopback may it begin with http://: '{text}'."
        )
        raise Error(Kind.INVALID, said)
    return text


def client_id(text: str) -> str:
    """Check the id that a provider gave this server. Raises Error(INVALID)."""
    if not CLIENT_ID.fullmatch(text):
        said = "Setting 'sso_client_id' must be 1 to 256 printable ASCII characters."
        raise Error(Kind.INVALID, said)
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SsoSettings:
    """A part of `config.Config`."""

    sso_issuer: str = setting(
        "the identity provider at which people sign in to the console, by OpenID Connect: its issuer, such as "
        "`https://login.example`, exactly as its discovery document names it; `none`: only keys and links sign in. "
        "Needs the extra `[sso]`",
        default=NONE,
        check=issuer,
    )
    sso_client_id: str = setting(
        "the id that the provider gave this server. Register there the address "
        "`https://HOST/console/sso/callback` for each name of the console",
        default=NONE,
        check=client_id,
    )
    sso_client_secret_file: str = setting(
        "a file whose first line is the secret that the provider gave this server; `none`: it gave none, and PKCE "
        "alone protects the code",
        default=NONE,
    )
    sso_organization: str = setting(
        "the organization whose people sign in there: those who have the address that the provider has verified. "
        "Nobody is added",
        default=NONE,
    )
