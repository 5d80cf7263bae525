"""Links of invites: opened and accepted as a browser does."""

import re
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.servers import Reply, Server

FORM = {"content-type": "application/x-www-form-urlencoded"}


def of(invite: Any) -> str:
    """The path of the link, which only the answer that creates an invite has."""
    path = urlsplit(str(invite.model_extra["link"])).path
    assert re.fullmatch("/invites/[A-Za-z0-9]{67}", path)
    return path


def opened(server: Server, path: str) -> Reply:
    return server.request("GET", path)


def accepted(server: Server, path: str, name: str = "Ada Lovelace") -> Reply:
    body = urlencode({"name": name}).encode()
    return server.request("POST", path, headers=FORM, body=body)


def key_on(page: Reply) -> str:
    found = re.search(r"sk-tw-[A-Za-z0-9-]+", page.body.decode())
    assert found is not None
    return found[0]
