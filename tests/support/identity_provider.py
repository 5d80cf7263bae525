"""A real identity provider for tests, the npm package oidc-provider, and a person who signs in there without a browser."""

import contextlib
import http.client
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import pytest
from tests.clients import environments
from tests.support.servers import Reply, Server

NAME = "oidc-provider"
PROGRAM = Path(__file__).parents[1] / "console" / "oidc_provider.mjs"
NODE = environments.NODE / "node"
CLIENT_ID, SECRET = "tunewarden", "a secret + of / this server"
# npm may wait for a connection that is dead.
INSTALL_SECONDS = 120.0
STOP_SECONDS = 10.0
STEPS_MAX = 12
FORM = re.compile(r'<form[^>]* action="([^"]+)"')
HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)"')


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the provider for a block; give its issuer. Skips where Node 22, npm or the package is not to be had."""
    if not NODE.exists() or shutil.which("npm") is None:
        pytest.skip("Node 22 or npm is not here: all tests of single sign-on at oidc-provider")
    try:
        place = environments.prepared(NAME, INSTALL_SECONDS)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm could not install {NAME}, which single sign-on is tested with: {error}")
    process = subprocess.Popen(
        [NODE, PROGRAM, place], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        issuer = next(
            (line.split()[1] for line in process.stdout if line.startswith("issuer ")), ""
        )
        assert issuer, "the provider ended"
        yield issuer
    finally:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)


class Person:
    """Somebody with a browser that keeps cookies, for the console and for the provider."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}
        self._there: dict[str, str] = {}

    def get(self, path: str) -> Reply:
        return self._here("GET", path)

    def post(self, path: str, fields: dict[str, str]) -> Reply:
        return self._here("POST", path, urlencode(fields).encode())

    def begin(self, path: str = "/console/sso") -> str:
        """Return the address of the provider that the console leads to."""
        reply = self.get(path)
        assert reply.status == 303, (reply.status, reply.body)
        return str(reply.header("location"))

    def at_provider(self, address: str, login: str) -> str:
        """Log in at the provider, as a browser would, and consent; return the console's path that it leads to."""
        method, body = "GET", b""
        for _ in range(STEPS_MAX):
            if address.startswith(self.server.url.removesuffix("/v1")):
                return address.removeprefix(self.server.url.removesuffix("/v1"))
            status, location, page = self._at_provider(method, address, body)
            if location is not None:
                method, address, body = "GET", urljoin(address, location), b""
                continue
            form = FORM.search(page)
            assert form, (status, page)
            fields = {**dict(HIDDEN.findall(page)), "login": login, "password": "any"}
            method, address = "POST", urljoin(address, form[1])
            body = urlencode(fields).encode()
        raise AssertionError(f"the provider leads nowhere: {address}")

    def sign_in(self, login: str, after: str = "") -> Reply:
        """Sign in at the provider; return how the console answers who comes back."""
        address = self.begin(f"/console/sso?{urlencode({'next': after})}")
        return self.get(self.at_provider(address, login))

    def _here(self, method: str, path: str, body: bytes | None = None) -> Reply:
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if body is not None:
            headers |= {
                "content-type": "application/x-www-form-urlencoded",
                "sec-fetch-site": "same-origin",
            }
        reply = self.server.request(method, path, headers=headers, body=body)
        _keep(
            self.cookies, [value for name, value in reply.headers if name.lower() == "set-cookie"]
        )
        return reply

    def _at_provider(self, method: str, address: str, body: bytes) -> tuple[int, str | None, str]:
        parts = urlsplit(address)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        try:
            headers = {
                "cookie": "; ".join(f"{name}={value}" for name, value in self._there.items())
            }
            if body:
                headers["content-type"] = "application/x-www-form-urlencoded"
            connection.request(method, f"{parts.path}?{parts.query}", body, headers)
            response = connection.getresponse()
            _keep(self._there, response.headers.get_all("set-cookie") or [])
            return response.status, response.headers["location"], response.read().decode()
        finally:
            connection.close()


def _keep(cookies: dict[str, str], lines: list[str]) -> None:
    for line in lines:
        for name, one in SimpleCookie(line).items():
            if one.value and one["max-age"] != "0":
                cookies[name] = one.value
            else:
                cookies.pop(name, None)
