"""`python -m tunewarden.cli.worker`: one gateway worker on a socket that the supervisor opened."""

import logging
import os
import resource
import socket
import sys
from pathlib import Path

import uvicorn

from tunewarden import config, processes
from tunewarden.api.protocol import ClientProtocol
from tunewarden.api.server import Server
from tunewarden.app import open_app, serving

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
STOP_SECONDS = 10


def main(data: str, descriptor: str, gate: str, parent: str) -> None:
    """Serve until SIGTERM; then finish what is running, up to STOP_SECONDS.

    Nothing of the data directory is touched before `gate`, a pipe, has ended: until then the
    supervisor recovers it, while this process has been loading its code.
    """
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s worker[%(process)d] %(message)s")
    _take_descriptors()
    os.read(int(gate), 1)
    listening = socket.socket(fileno=int(descriptor))
    application = Server(serving(open_app(config.load(data=Path(data)))))
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


def _take_descriptors() -> None:
    """Take as many as the system gives: each request under way needs two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
