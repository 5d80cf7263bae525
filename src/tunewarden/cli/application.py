"""Runs the application in the command's process, if no server runs on the data directory.

If a server starts in the meantime it is as safe as a worker of that server: deletions follow the same protocol,
fence included, and the server's runner polls for new rows.
"""

from tunewarden.api.direct import Direct
from tunewarden.api.server import Server
from tunewarden.app import answering, open_app
from tunewarden.cli.transport import ROOT, Answer, Request
from tunewarden.config import Config


class Application:
    """Answers requests one at a time. Close it after use."""

    def __init__(self, settings: Config) -> None:
        """Open the data directory. Raises Error(UNAVAILABLE)."""
        self._app = open_app(settings)
        self._direct = Direct(Server(answering(self._app)))
        self._has_joined = False

    def send(self, request: Request, key: str) -> Answer:
        """Return the response to a request with this key."""
        headers = {**request.headers, "authorization": f"Bearer {key}"}
        if request.into is not None and not self._has_joined:
            # What is streamed may be a model, which a deletion by another process must be able to cut.
            self._app.fence.join()
            self._has_joined = True
        path = request.path if request.is_at_root else ROOT + request.path
        body = request.body or ()
        return Answer(*self._direct.ask(request.method, path, headers, body, request.into))

    def close(self) -> None:
        """Close its event loop."""
        self._direct.close()
