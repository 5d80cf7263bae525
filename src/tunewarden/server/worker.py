"""`python -m tunewarden.server.worker`: one gateway worker on the supervisor's listening socket."""

import logging
import resource
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from tunewarden import config, logs, processes
from tunewarden.api.server import Server
from tunewarden.app import open_app, serving
from tunewarden.config import Config
from tunewarden.console.entrance import Console
from tunewarden.gateway import access_log
from tunewarden.gateway.protocol import ClientProtocol
from tunewarden.metrics import recording
from tunewarden.server.drain import DrainingServer
from tunewarden.token_buckets.memory import Memory

BACKLOG = 2048
# Descriptors for the worker itself: database, locks, log, event loop, and other routes.
OWN_DESCRIPTORS = 128
KEEP_ALIVE_SECONDS = 75

logger = logging.getLogger(__name__)


def main(  # noqa: PLR0917  a command line
    data: str, parent: str, slot: str, descriptor: str, counters: str, buckets: str
) -> None:
    """Serve on the listening socket `descriptor` until SIGTERM, then drain for up to `drain_seconds`.

    `slot` is the worker's in the memory `counters`, also a descriptor, as that of rate limits, `buckets`.
    """
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    given = config.load(data=Path(data))
    logs.to_stderr("worker[%(process)d]", given.log_format)
    if given.access_log:
        access_log.enable()
    recording.join(int(counters), int(slot))
    descriptors = _take_descriptors()
    listening = socket.socket(fileno=int(descriptor))
    settings = within(given, descriptors)
    application = Server(serving(open_app(settings), Memory(int(buckets))), Console)
    server = DrainingServer(
        uvicorn.Config(
            application,
            http=ClientProtocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,  # uvicorn logs to our handlers
            log_level="warning",
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ),
        application,
        delay=settings.drain_delay_seconds,
        seconds=settings.drain_seconds,
    )
    server.run(sockets=[listening])


def within(settings: Config, descriptors: int) -> Config:
    """Return settings with `connections_max` reduced to what `descriptors` allows; logs a reduction.

    Each request in flight needs two. Without this limit, accept(2) fails when they run out, and a
    client waits instead of getting a 503.
    """
    most = max(1, (descriptors - OWN_DESCRIPTORS) // 2)
    if settings.connections_max <= most:
        return settings
    if settings.connections_max != Config().connections_max:
        said = "connections_max is %d, but a limit of %d open files allows %d: raise it (ulimit -n)"
        logger.warning(said, settings.connections_max, descriptors, most)
    return replace(settings, connections_max=most)


def _take_descriptors() -> int:
    """Raise the soft limit of open files to the hard limit; return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


if __name__ == "__main__":
    main(*sys.argv[1:])
