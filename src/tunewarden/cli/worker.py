"""`python -m tunewarden.cli.worker`: one gateway worker on a socket that the supervisor opened."""

import logging
import os
import resource
import socket
import sys
from dataclasses import replace
from pathlib import Path

import uvicorn

from tunewarden import config, processes
from tunewarden.api.protocol import ClientProtocol
from tunewarden.api.server import Server
from tunewarden.app import open_app, serving
from tunewarden.config import Config

BACKLOG = 2048
# Of a worker's own: database, locks, log, the loop; and what its other routes open.
OWN_DESCRIPTORS = 128
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 10

logger = logging.getLogger(__name__)


def main(data: str, descriptor: str, gate: str, parent: str) -> None:
    """Serve until SIGTERM; then finish what is running, up to STOP_SECONDS.

    Nothing of the data directory is touched before `gate`, a pipe, has ended: until then the
    supervisor recovers it, while this process has been loading its code.
    """
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    descriptors = _take_descriptors()
    os.read(int(gate), 1)
    listening = socket.socket(fileno=int(descriptor))
    settings = within(config.load(data=Path(data)), descriptors)
    application = Server(serving(open_app(settings)))
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=ClientProtocol,
            loop="uvloop",
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    server.run(sockets=[listening])


def within(settings: Config, descriptors: int) -> Config:
    """Return settings with no more connections than the descriptors are for; a choice that is cut is logged.

    Each request under way needs two. Without this bound, accepting fails when they are used up, and a
    client waits where it could be told (503).
    """
    most = max(1, (descriptors - OWN_DESCRIPTORS) // 2)
    if settings.connections_max <= most:
        return settings
    if settings.connections_max != Config().connections_max:
        said = "connections_max is %d, but %d open files are for %d: raise their limit (ulimit -n)"
        logger.warning(said, settings.connections_max, descriptors, most)
    return replace(settings, connections_max=most)


def _take_descriptors() -> int:
    """Take as many as the system gives; return how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


if __name__ == "__main__":
    main(*sys.argv[1:])
