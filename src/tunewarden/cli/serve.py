"""`tunewarden serve`: prepare the data directory, start everything, print how to use it."""

import contextlib
import socket
from collections.abc import Mapping
from enum import StrEnum

from rich.console import Console

from tunewarden import logs
from tunewarden.app import App, open_app, scratch_directory
from tunewarden.cli.announcement import Announcement
from tunewarden.config import SETTINGS, Config
from tunewarden.errors import Error
from tunewarden.exclusive_use import with_no_server
from tunewarden.recovery_at_start import recover
from tunewarden.server import first_start, metrics_server, start_checks
from tunewarden.server.fork_server import ForkServer
from tunewarden.server.supervisor import Supervisor, listen, note_address
from tunewarden.settings import Source, host_and_port


class Demo(StrEnum):
    """The source of the demo's weights, if requested."""

    NONE = "none"
    PACKAGED = "packaged"
    TRAINED = "trained"


def run(
    settings: Config, sources: Mapping[str, Source], fork_server: ForkServer, *, demo: Demo
) -> None:
    """Run a server until a signal stops it; `sources` are those of its settings. Raises Error if it cannot start."""
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
        start_checks.warn_of_single_sign_on(settings)
        given = {name: sources[name] for name, setting in SETTINGS.items() if setting.has_flag}
        noted = {"settings": given, "workers": settings.workers}
        _run(app, listening, fork_server, scraped, demo=demo, noted=noted)


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
    noted: Mapping[str, object],
) -> None:
    console = Console(stderr=True)
    recover(app)
    is_first = first_start.owner_key(app) is None
    first_start.make_owner(app)
    if demo is not Demo.NONE:
        first_start.make_demo(app, console, train=demo is Demo.TRAINED)
    announcement = Announcement(app, _url(listening), is_first=is_first)
    metrics = None if scraped is None else f"{_url(scraped)}{metrics_server.PATH}"
    note_address(app, f"{_url(listening)}/v1", metrics=metrics, **noted)
    Supervisor(app, listening, fork_server, scraped).run(announcement.made)
    # No load is running, so the directory should be empty; if not, the next start sweeps it.
    with contextlib.suppress(OSError):
        scratch_directory(app.config).rmdir()


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
