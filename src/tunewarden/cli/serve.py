"""`tunewarden serve`: prepare the data directory, start everything, print how to use it."""

import contextlib
import socket
import sys
from enum import StrEnum
from http.client import HTTPConnection, HTTPException

from rich.console import Console

from tunewarden import logs
from tunewarden.app import App, open_app, scratch_directory, with_no_server
from tunewarden.config import Config
from tunewarden.errors import Error
from tunewarden.recovery_at_start import recover
from tunewarden.registry import bases, models
from tunewarden.server import first_start, metrics_server, start_checks
from tunewarden.server.fork_server import ForkServer
from tunewarden.server.supervisor import Supervisor, listen, note_address
from tunewarden.settings import host_and_port

# Timeout for the state of an engine that is busy loading.
ENGINE_SECONDS = 0.2
SNIPPET = """
from openai import OpenAI
client = OpenAI(base_url="{url}", api_key={key})
chat = client.chat.completions.create(model="{model}", temperature=0, messages=[{{"role": "user", "content": "Hello"}}])
print(chat.choices[0].message.content)
client.models.delete("{model}")
"""


class Demo(StrEnum):
    """The source of the demo's weights, if requested."""

    NONE = "none"
    PACKAGED = "packaged"
    TRAINED = "trained"


def run(settings: Config, fork_server: ForkServer, *, demo: Demo) -> None:
    """Run a server until a signal stops it. Raises Error if it cannot start."""
    logs.to_stderr("supervisor", settings.log_format)
    if demo is not Demo.NONE:  # Check before anything is created.
        start_checks.require_engine()
        if demo is Demo.PACKAGED and not (settings.data / first_start.DEMO_BASE).exists():
            first_start.packaged_demo()
    start_checks.close_to_others(settings)
    # The port comes first: one that is in use must not leave a new data directory behind.
    with (
        _listening(settings) as listening,
        _scraped(settings) as scraped,
        with_no_server(settings),
    ):
        scratch_directory(settings)  # first: it may choose its name
        app = open_app(settings, migrate=True)
        start_checks.check_swap(app)
        start_checks.warn_of_plain_http(settings)
        start_checks.warn_of_tracing(settings)
        _run(app, listening, fork_server, scraped, demo=demo)


def _scraped(settings: Config) -> contextlib.AbstractContextManager[socket.socket | None]:
    """Open the listening socket of the metrics, if they are wanted. Raises Error(UNAVAILABLE)."""
    where = host_and_port(settings.metrics_address)
    return contextlib.nullcontext() if where is None else listen(*where, setting="metrics_address")


def _listening(settings: Config) -> socket.socket:
    """Open the listening socket. Raises Error(UNAVAILABLE), or Error(CONFLICT) beside a server on the same data."""
    try:
        return listen(settings.host, settings.port)
    except Error:
        if settings.run.exists():
            with with_no_server(settings):
                pass  # It says better than the port does what is wrong.
        raise


def _run(
    app: App,
    listening: socket.socket,
    fork_server: ForkServer,
    scraped: socket.socket | None,
    *,
    demo: Demo,
) -> None:
    console = Console(stderr=True)
    recover(app)
    is_first = first_start.owner_key(app) is None
    first_start.make_owner(app)
    if demo is not Demo.NONE:
        first_start.make_demo(app, console, train=demo is Demo.TRAINED)
    announcement = _Announcement(app, listening, is_first=is_first)
    metrics = None if scraped is None else _url(scraped, metrics_server.PATH)
    note_address(app, announcement.url, metrics)
    Supervisor(app, listening, fork_server, scraped).run(announcement.made)
    # No load is running, so the directory should be empty; if not, the next start sweeps it.
    with contextlib.suppress(OSError):
        scratch_directory(app.config).rmdir()


def _url(listening: socket.socket, path: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"


class _Announcement:
    """Prints how to use the server: its address at once, and the snippet when the models answer."""

    def __init__(self, app: App, listening: socket.socket, *, is_first: bool) -> None:
        self._app = app
        host, port = listening.getsockname()[:2]
        self._listening = host, port
        self.url = _url(listening, "/v1")
        self._is_first = is_first
        self._is_begun = False

    def made(self) -> bool:
        """Print what is known so far; return whether that is everything."""
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
            self._say(SNIPPET.format(url=self.url, key=self._shown_key(), model=model))
        return True

    def _shown_key(self) -> str:
        """Return the Python expression for the Owner key: the key itself on a first start's terminal only."""
        key = first_start.owner_key(self._app)
        if self._is_first and key is not None and sys.stdout.isatty():
            return f'"{key}"'
        return f"open({str(self._app.config.owner_key.resolve())!r}).read().strip()"

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
        # A service's output goes to logs, which others read and nobody erases.
        if self._is_first and key is not None and sys.stdout.isatty():
            lines.append(
                f"Owner key (shown only once; also in {config.owner_key}, mode 0600): {key}"
            )
        else:
            lines.append(f"The Owner key is in {config.owner_key}.")
        if not bases.list_all(self._app.database):
            lines.append(
                f"No base model yet: tunewarden bases add NAME --path DIR --data {config.data}"
            )
        return lines

    def _loading(self) -> list[str]:
        """Return the local bases that the engine has not loaded yet."""
        local = bases.local(self._app.database)
        if not local:
            return []
        try:
            loaded = self._app.engine.bases(within_seconds=ENGINE_SECONDS)
        except (OSError, HTTPException, ValueError, Error):
            loaded = set()  # It is starting, or failing, which the runner logs.
        return [base.name for base in local if base.name not in loaded]

    def _say(self, *lines: str) -> None:
        print("\n".join(lines), flush=True)  # noqa: T201  this is what the command is for
