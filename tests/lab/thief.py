"""Whoever gets hold of a medium, and tries every key on it on every sealed file on it."""

import re
from collections.abc import Iterable

import pyrage

_IDENTITY = re.compile(rb"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}")
_AGE_FILE = b"age-encryption.org/v1\n"


def identities_within_reach(contents: Iterable[bytes]) -> set[bytes]:
    """Return every age identity that stands in the contents or can be unsealed with one that does."""
    contents = list(contents)
    found = {match for content in contents for match in _IDENTITY.findall(content)}
    for sealed in (content for content in contents if content.startswith(_AGE_FILE)):
        for key in list(found):
            try:
                identity = pyrage.x25519.Identity.from_str(key.decode())
                found |= set(_IDENTITY.findall(pyrage.decrypt(sealed, [identity])))
            except (pyrage.DecryptError, pyrage.IdentityError, OSError):
                continue
    return found
