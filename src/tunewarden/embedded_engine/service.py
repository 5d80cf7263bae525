"""Serves the engine's HTTP API on a socket until it is stopped."""

import asyncio
import signal
import socket
from types import FrameType

import torch
import uvicorn
import uvloop

from tunewarden.clock import SystemClock
from tunewarden.embedded_engine.engine import Engine, Settings
from tunewarden.embedded_engine.http import HttpApi
from tunewarden.embedded_engine.model import Precision
from tunewarden.embedded_engine.prefill import MEBIBYTE, Limits
from tunewarden.embedded_engine.processors import threads_by_default

STOP_SECONDS = 2


class _Server(uvicorn.Server):
    """uvicorn's server, which aborts streams with an error before it drains its connections."""

    engine: Engine | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Abort all requests, then let uvicorn stop (its name for a signal's arrival)."""
        if self.engine is not None:
            self.engine.abort_all()
        super().handle_exit(sig, frame)


def serve(
    listener: socket.socket,
    *,
    threads: int | None,
    adapters: int,
    rows: int,
    waiting_tokens: int,
    prefix_mebibytes: int,
    precision: str,
) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT."""
    torch.set_num_threads(threads or threads_by_default())
    # uvicorn re-raises the signal after shutdown; ignore it and return.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    prefix_bytes = prefix_mebibytes * MEBIBYTE
    limits = Limits(rows=rows, waiting_tokens=waiting_tokens, prefix_bytes=prefix_bytes)
    settings = Settings(adapters_max=adapters, limits=limits, precision=Precision(precision))

    async def run() -> None:
        engine = Engine(settings)
        config = uvicorn.Config(
            HttpApi(engine, SystemClock()),
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_level="warning",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = _Server(config)
        server.engine = engine
        try:
            await server.serve(sockets=[listener])
        finally:
            engine.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
