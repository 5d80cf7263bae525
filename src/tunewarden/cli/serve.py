"""`tunewarden serve`: prepare the data directory, start everything, say how to use it."""

import contextlib
import logging
from http.client import HTTPConnection, HTTPException

from rich.console import Console

from tunewarden import processes
from tunewarden.app import App, open_app, recover, scratch_directory, with_no_server
from tunewarden.cli import first_start
from tunewarden.cli.supervisor import Supervisor, listen, note_address
from tunewarden.config import Config
from tunewarden.registry import bases, models

# How long the supervisor may wait for an engine that is busy loading.
ENGINE_SECONDS = 0.2
SNIPPET = """
from openai import OpenAI
client = OpenAI(base_url="{url}", api_key="{key}")
chat = client.chat.completions.create(model="{model}", temperature=0, messages=[{{"role": "user", "content": "Hello"}}])
print(chat.choices[0].message.content)
client.models.delete("{model}")
"""


def run(settings: Config, *, demo: bool) -> None:
    """Run a server until it is told to stop. Raises Error when it cannot start."""
    processes.keep_secrets_in_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s supervisor %(message)s")
    with with_no_server(settings):
        _run(open_app(settings, migrate=True), demo=demo)


def _run(app: App, *, demo: bool) -> None:
    settings = app.config
    console = Console(stderr=True)
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    supervisor = Supervisor(app, listening)
    with supervisor.starting():
        recover(app)
        is_first = first_start.owner_key(app) is None
        first_start.make_owner(app)
        if demo:
            first_start.make_demo(app, console)
        announcement = _Announcement(app, host, port, is_first=is_first)
        note_address(app, announcement.url)
    supervisor.run(announcement.made)
    # Nothing loads any more, so the directory is empty; if it is not, the next start sweeps it.
    with contextlib.suppress(OSError):
        scratch_directory(app.config).rmdir()


class _Announcement:
    """Says how to use the server: at once where it answers, and the snippet once the models do."""

    def __init__(self, app: App, host: str, port: int, *, is_first: bool) -> None:
        shown = f"[{host}]" if ":" in host else host
        self._app = app
        self._listening = host, port
        self.url = f"http://{shown}:{port}/v1"
        self._is_first = is_first
        self._is_begun = False

    def made(self) -> bool:
        """Say what can be said by now; tell whether that was all."""
        if not self._is_begun:
            if not self._is_ready():
                return False
            self._is_begun = True
            loading = self._loading()
            self._say(*self._begin(), *([f"Loading {', '.join(loading)} …"] if loading else []))
            if loading:
                return False
        elif self._loading():
            return False
        else:
            self._say("The engine answers.")
        model = models.newest(self._app.database)
        if model is not None:
            key = first_start.owner_key(self._app) if self._is_first else "…"
            self._say(SNIPPET.format(url=self.url, key=key, model=model))
        return True

    def _is_ready(self) -> bool:
        connection = HTTPConnection(*self._listening, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _begin(self) -> list[str]:
        config = self._app.config
        key = first_start.owner_key(self._app)
        lines = [f"Tunewarden answers at {self.url}"]
        if self._is_first and key is not None:
            lines.append(f"Owner key (this once; also in {config.owner_key}, mode 0600): {key}")
        else:
            lines.append(f"The Owner key is in {config.owner_key}.")
        if self._app.database.peek("SELECT 1 FROM bases LIMIT 1") is None:
            lines.append(
                f"No base model yet: tunewarden base add NAME --path DIR --data {config.data}"
            )
        return lines

    def _loading(self) -> list[str]:
        """Return the local bases that the engine does not have yet."""
        local = bases.local(self._app.database)
        if not local:
            return []
        try:
            loaded = self._app.engine.bases(within_seconds=ENGINE_SECONDS)
        except (OSError, HTTPException, ValueError):
            loaded = set()
        return [base.name for base in local if base.name not in loaded]

    def _say(self, *lines: str) -> None:
        print("\n".join(lines), flush=True)  # noqa: T201  this is what the command is for
