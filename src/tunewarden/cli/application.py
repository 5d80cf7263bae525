"""Runs the application in the command's process, if no server runs on the data directory.

If a server starts in the meantime it is as safe as a worker of that server: deletions follow the same protocol,
fence included, and the server's runner polls for new rows.
"""

from dataclasses import replace

from tunewarden.api.direct import Direct
from tunewarden.api.server import Server
from tunewarden.app import answering, open_app
from tunewarden.cli.transport import ROOT, Answer, Request
from tunewarden.config import Config


class Application:
    """Answers requests one at a time. Close it after use."""

    def __init__(self, settings: Config) -> None:
        """Open the data directory. Raises Error(UNAVAILABLE)."""
        self._direct = Direct(Server(answering(open_app(settings))))

    def send(self, request: Request, key: str) -> Answer:
        """Return the response to a request with this key."""
        headers = {**request.headers, "authorization": f"Bearer {key}"}
        answer = Answer(
            *self._direct.ask(request.method, ROOT + request.path, headers, request.body or ())
        )
        if request.into is None or answer.status != 200:
            return answer
        request.into(answer.body)
        return replace(answer, body=b"")

    def close(self) -> None:
        """Close its event loop."""
        self._direct.close()
