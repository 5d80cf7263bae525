"""Whether single sign-on is wanted, and what is missing for it. Loads nothing of the extra `[sso]`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tunewarden.config import Config
from tunewarden.sso_settings import NONE

REMEDY: Final = "pip install 'tunewarden[sso]'"


def is_wanted(config: Config) -> bool:
    """Return whether an identity provider is set."""
    return config.sso_issuer != NONE


def missing(config: Config) -> str | None:
    """Return what the operator must do before people can sign in there; None if nothing is missing."""
    for name in ("sso_client_id", "sso_organization"):
        if getattr(config, name) == NONE:
            return f"set '{name}' beside 'sso_issuer'"
    file = config.sso_client_secret_file
    if file != NONE and not Path(file).is_file():
        return f"'sso_client_secret_file' names no file: {file}"
    if find_spec("authlib") is None or find_spec("joserfc") is None:
        return REMEDY
    return None
