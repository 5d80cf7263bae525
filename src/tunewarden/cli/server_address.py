"""The address that applications use, as a command reaches the server."""

from pathlib import Path
from urllib.parse import urlsplit

from tunewarden import config
from tunewarden.cli import data_directory
from tunewarden.cli.transport import ROOT

USUAL_URL = "http://127.0.0.1:8800/v1"


def shown_url(data: Path | None) -> str:
    """Return the server's address for the SDK; the usual one if none runs on the data directory."""
    server = config.client_settings() if data is None else None
    if server is None:
        return data_directory.server_url(config.load(data=data)) or USUAL_URL
    url = server[0].rstrip("/")
    return url if urlsplit(url).path else f"{url}{ROOT}"
