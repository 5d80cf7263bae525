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
from tunewarden.registry import models

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
        shown = f"[{host}]" if ":" in host else host
        note_address(app, f"http://{shown}:{port}/v1")
    supervisor.run(lambda: _announced(app, host, port, is_first=is_first))
    # Nothing loads any more, so the directory is empty; if it is not, the next start sweeps it.
    with contextlib.suppress(OSError):
        scratch_directory(app.config).rmdir()


def _announced(app: App, host: str, port: int, *, is_first: bool) -> bool:
    """Say how to use the server, once it answers."""
    connection = HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        if connection.getresponse().status != 200:
            return False
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}/v1"
    key = first_start.owner_key(app)
    lines = [f"Tunewarden answers at {url}"]
    if is_first and key is not None:
        lines.append(f"Owner key (this once; also in {app.config.owner_key}, mode 0600): {key}")
    else:
        lines.append(f"The Owner key is in {app.config.owner_key}.")
    if app.database.peek("SELECT 1 FROM bases LIMIT 1") is None:
        lines.append(
            "No base model yet: tunewarden base add NAME --path DIR --data " + str(app.config.data)
        )
    model = models.newest(app.database)
    if model is not None:
        lines.append(SNIPPET.format(url=url, key=key if is_first else "…", model=model))
    print("\n".join(lines), flush=True)  # noqa: T201  this is what the command is for
    return True
