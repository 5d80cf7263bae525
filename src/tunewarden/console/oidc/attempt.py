"""One attempt to sign in at the identity provider, kept by the browser that began it.

Its cookie holds one secret. State, nonce and verifier are digests of it: who reads the address of the provider, or of
the way back, learns nothing of the secret, and what another browser brings back has another state. So no worker keeps
attempts, and any may finish one.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.console.guard import Way
from tunewarden.ids import token

SECRET_LENGTH = 43  # 43 alphanumerics carry 256 bits
LIFE_SECONDS = 600
AFTER_LENGTH_MAX = 1024
FORM = re.compile(r"([0-9A-Za-z]{43})\.(sign_in|proof)\.([0-9A-Za-z_-]{0,1400}={0,2})")


class Purpose(StrEnum):
    """What an attempt is for."""

    SIGN_IN = "sign_in"
    PROOF = "proof"  # of who it is, by somebody who is signed in


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, and the page of the console that it leads to."""

    secret: str
    purpose: Purpose
    after: str

    @classmethod
    def new(cls, purpose: Purpose, after: str) -> "Attempt":
        """Return a new attempt."""
        is_short = len(after) <= AFTER_LENGTH_MAX and after.isascii()
        return cls(token(SECRET_LENGTH), purpose, after if is_short else "")

    @classmethod
    def of_cookie(cls, text: str) -> "Attempt | None":
        """Return the attempt of a cookie's value; None if it is none."""
        found = FORM.fullmatch(text)
        if found is None:
            return None
        secret, purpose, after = found.groups()
        try:
            return cls(secret, Purpose(purpose), urlsafe_b64decode(after).decode("ascii"))
        except ValueError:
            return None

    @property
    def state(self) -> str:
        """What the provider sends back, which tells the browser that began it from any other."""
        return self._digest("state")

    @property
    def nonce(self) -> str:
        """What the provider puts into the ID token."""
        return self._digest("nonce")

    @property
    def verifier(self) -> str:
        """The code verifier of PKCE."""
        return self._digest("verifier")

    def is_of(self, state: str) -> bool:
        """Return whether a state that a browser brought back belongs to this attempt."""
        return hmac.compare_digest(state.encode(), self.state.encode())

    def set_cookie(self, way: Way) -> str:
        """Return a Set-Cookie header that keeps the attempt while the browser is at the provider."""
        after = urlsafe_b64encode(self.after.encode("ascii")).decode("ascii")
        value = f"{self.secret}.{self.purpose.value}.{after}"
        return way.set_attempt(value, seconds=LIFE_SECONDS)

    def _digest(self, what: str) -> str:
        digest = hashlib.sha256(f"{what}:{self.secret}".encode()).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
