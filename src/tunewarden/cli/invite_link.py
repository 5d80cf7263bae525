"""Accepts an invite by its link: the one request of a command that needs no key."""

import json
import re

from tunewarden.cli.client import Client, Object
from tunewarden.cli.transport import Http
from tunewarden.errors import Error, Kind

LINK = re.compile(r"(https?://[^/?#\s]+)/invites/([A-Za-z0-9]+)")


def accept(link: str, name: str) -> Object:
    """Accept an invite; return the answer, with the API key. Raises Error."""
    match = LINK.fullmatch(link.strip())
    if match is None:
        raise Error(
            Kind.INVALID,
            "This is no link of an invite. One looks like https://models.example/invites/….",
            param="link",
        )
    body = json.dumps({"name": name}).encode()
    server = Client(Http(f"{match[1]}/invites", key=None))
    return server.send(match[2], body=[body], length=len(body), content_type="application/json")
