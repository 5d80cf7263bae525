"""A data directory of this machine: uses its running server, or else the application in this process.

The caller is the Owner whose key is in `DIR/owner.key`: anyone who can read that file is the Owner.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tunewarden.cli.transport import Answer, Http, NotServing, Request
from tunewarden.clock import SystemClock
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.locks import ByteLocks

if TYPE_CHECKING:
    from tunewarden.cli.application import Application

UNAUTHENTICATED = 401
COMMAND_SECONDS = 3600  # for which a key lives that a killed command could not revoke


@contextmanager
def opened(settings: Config) -> Iterator["DataDirectory"]:
    """Open a data directory for the duration of the block. Raises Error(UNAVAILABLE), Error(UNAUTHENTICATED)."""
    directory = DataDirectory(settings)
    try:
        directory.read_key()
        yield directory
    finally:
        directory.close()


@contextmanager
def administered(settings: Config, organization: str | None = None) -> Iterator["DataDirectory"]:
    """Open a data directory with an admin key of the Owner, which is made if there is none that is valid.

    With an organization's name the key is of its oldest Owner, and is revoked at the end of the block. Raises
    Error(UNAVAILABLE, UNAUTHENTICATED), Error(FORBIDDEN) if the user of the Owner key is no Owner any more,
    Error(NOT_FOUND) for an organization that is unknown or has no Owner.
    """
    if organization is not None:
        directory = DataDirectory(settings)
        try:
            with directory.key_of(organization):
                yield directory
        finally:
            directory.close()
        return
    with opened(settings) as directory:
        directory.use_admin_key()
        yield directory


class DataDirectory:
    """Sends requests to a data directory. A server may start or stop between two of them."""

    def __init__(self, settings: Config) -> None:
        self.name = str(settings.data)
        self._settings = settings
        self._key = ""
        self._http: Http | None = None
        self._application: Application | None = None

    def read_key(self) -> None:
        """Read the Owner's key. Raises Error(UNAVAILABLE) without a data directory, else Error(UNAUTHENTICATED)."""
        path = self._settings.owner_key
        try:
            self._key = path.read_text("utf-8").strip()
        except FileNotFoundError as error:
            self._opened()  # raises if it is not a data directory
            raise Error(
                Kind.UNAUTHENTICATED,
                f"{path} is not there. Set TUNEWARDEN_URL and TUNEWARDEN_API_KEY to use another key; to administer,"
                " TUNEWARDEN_ADMIN_KEY, which `tunewarden admin-keys create` makes on the server's machine.",
            ) from error

    def use_admin_key(self) -> None:
        """Use the admin key in `DIR/admin.key` from now on. Raises Error(UNAUTHENTICATED, FORBIDDEN, UNAVAILABLE)."""
        owner_key = self._key
        with suppress(FileNotFoundError):
            self._key = self._settings.admin_key.read_text("utf-8").strip()
            self._http = None
            if (
                self.send(Request("GET", "/organization/projects?limit=0")).status
                != UNAUTHENTICATED
            ):
                return
        from tunewarden.cli import admin_key_file  # noqa: PLC0415  half a second, for the first command only

        self._key = admin_key_file.make(self._settings, owner_key)
        self._http = None

    @contextmanager
    def key_of(self, organization: str) -> Iterator[None]:
        """Use an admin key of an organization's oldest Owner for a block. Raises Error(NOT_FOUND, UNAVAILABLE)."""
        from tunewarden.cli import local_admin_keys  # noqa: PLC0415  half a second, for such commands only

        made = local_admin_keys.create(
            self._settings,
            organization=organization,
            user=None,
            name="a command on the server's machine",
            expires=COMMAND_SECONDS,
        )
        self._key = made["value"]
        try:
            yield
        finally:
            local_admin_keys.revoke(self._settings, organization, made["id"])

    def is_served(self) -> bool:
        """Return whether a server runs on it; without one no model answers and no job continues."""
        return server_url(self._settings) is not None

    def send(self, request: Request) -> Answer:
        """Send a request and return the complete response. Raises Error(UNAVAILABLE), Error(FORBIDDEN)."""
        url = server_url(self._settings)
        if url is not None:
            try:
                return self._server_at(url).send(request)
            except NotServing:
                pass  # It is starting or stopping, or at its connection limit.
        return self._opened().send(request, self._key)

    def close(self) -> None:
        """Close the application, if it was opened."""
        if self._application is not None:
            self._application.close()

    def _server_at(self, url: str) -> Http:
        if self._http is None or self._http.name != url:
            self._http = Http(url, self._key)
        return self._http

    def _opened(self) -> "Application":
        if self._application is None:
            from tunewarden.cli.application import Application  # noqa: PLC0415  half a second, for those without a server

            self._application = Application(self._settings)
        return self._application


def server_url(settings: Config) -> str | None:
    """Return the address of a data directory's running server, or None."""
    try:
        locks = ByteLocks(settings.run / "server.lock", create=False)
    except FileNotFoundError:
        return None
    try:
        if not locks.is_held_exclusively(0):
            return None
    finally:
        locks.close()
    try:
        return str(json.loads((settings.run / "server.json").read_text("utf-8"))["url"])
    except FileNotFoundError:
        return None


def seconds_since_start(settings: Config) -> float:
    """Return how long ago the running server wrote its address; infinite if it has not."""
    try:
        started = (settings.run / "server.json").stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return SystemClock().now().timestamp() - started
