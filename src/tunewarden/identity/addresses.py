"""E-mail addresses: checked, and kept in lower case."""

import re

from tunewarden.errors import Error, Kind

LENGTH_MAX = 254  # RFC 5321 §4.5.3.1, with the brackets
# ASCII, without quoted local parts and address literals. No control character, so that none begins a header.
ADDRESS = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,64})*"
    r"@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
LOCAL_LENGTH_MAX = 64


def normalized(text: str, param: str = "email") -> str:
    """Return an address in lower case. Raises Error(INVALID)."""
    # Before lower(), which makes ASCII of some letters that are none.
    address = text.strip(" ").lower() if text.isascii() else ""
    is_short = len(address) <= LENGTH_MAX and len(address.partition("@")[0]) <= LOCAL_LENGTH_MAX
    if not is_short or not ADDRESS.fullmatch(address):
        raise Error(
            Kind.INVALID,
            f"Invalid value for '{param}': it must be one e-mail address in ASCII, such as ada@example.com.",
            param=param,
            code="invalid_value",
        )
    return address
