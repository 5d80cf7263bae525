"""A person at the console, without a browser: keeps the cookie, reads forms, and sends them as a browser does."""

import html
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from tests.support.servers import Reply, Server

from tunewarden.identity.sessions import PROOF_MICROS

FORM = "application/x-www-form-urlencoded"
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


class Visitor:
    """Somebody who opens pages of one server."""

    def __init__(self, server: Server, key: str | None = None) -> None:
        """Sign in with a key, if there is one."""
        self.server = server
        self.host = "{}:{}".format(*server.address)
        self.cookie: str | None = None
        if key is not None:
            signed_in = self.post("/console/sign-in", {"key": key, "next": ""})
            assert signed_in.status == 303, signed_in.body

    def administer(self, admin_key: str) -> None:
        """Show an admin key, so that the session administers."""
        reply = self.post("/console/administration", {"key": admin_key, "next": ""})
        assert reply.status == 303, reply.body

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self._ask("GET", path, dict(headers or {}))

    def text(self, path: str) -> str:
        """Return a page that must be there."""
        reply = self.get(path)
        assert reply.status == 200, (path, reply.status, reply.body)
        return reply.body.decode()

    def post(
        self,
        path: str,
        fields: Mapping[str, str | Sequence[str]],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a form from a page of the console; a field with several texts is sent as often."""
        sent = {"sec-fetch-site": "same-origin", **(headers or {}), "content-type": FORM}
        return self._ask("POST", path, sent, urlencode(fields, doseq=True).encode())

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> Reply:
        if self.cookie is not None:
            headers = {"cookie": self.cookie, **headers}
        reply = self.server.request(method, path, headers=headers, body=body)
        set_cookie = reply.header("set-cookie")
        if set_cookie is not None:
            self.cookie = set_cookie.partition(";")[0]
        return reply


def sign_in_a_while_ago(server: Server, key: str) -> Visitor:
    """Return somebody whose session asks for the key again before what needs a proof."""
    visitor = Visitor(server, key)
    with server.app.database.write() as tx:
        sql = "UPDATE sessions SET proof_at = proof_at - :by WHERE key_id = :key"
        tx.run(sql, by=PROOF_MICROS, key=f"key_{key.split('-')[2]}")
    return visitor


def hidden(page: str) -> dict[str, str]:
    """Return what a page's forms send beside what is typed."""
    return {name: html.unescape(value) for name, value in HIDDEN.findall(page)}
