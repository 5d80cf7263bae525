"""Graceful shutdown of a worker: fail the readiness probe, stop accepting, drain.

1. The first signal: `/readyz` is 503, and each response closes its connection; everything else continues.
2. `drain_delay_seconds` later the worker stops accepting, and idle connections are closed.
3. `drain_seconds` later requests still in flight end with an error, and the worker exits.

A second signal skips to the end of 3.

The phases, and what each event does (empty: nothing):

    event                        SERVING      DRAINING     HURRIED     ENDING
    a signal                     -> DRAINING  -> HURRIED               -> HURRIED
    no request is left, or the                -> ENDING    -> ENDING
     timeout passed
"""

import asyncio
import logging
import socket
from enum import Enum, auto
from types import FrameType
from typing import cast

import uvicorn

from tunewarden.api.server import Server
from tunewarden.gateway.protocol import ClientProtocol

POLL_SECONDS = 0.02
# A connection that just opened or became idle may be receiving a request already.
IDLE_SECONDS = 0.2
# How long flushing the last errors may take.
FLUSH_SECONDS = 0.3


logger = logging.getLogger(__name__)


class Phase(Enum):
    """The phase of a worker's shutdown."""

    SERVING = auto()
    DRAINING = auto()  # steps 1 and 2: requests in flight continue
    HURRIED = auto()  # nothing is waited for any more
    ENDING = auto()  # step 3: the last errors are flushed


class DrainingServer(uvicorn.Server):
    """uvicorn's server with this shutdown."""

    def __init__(
        self, settings: uvicorn.Config, application: Server, *, delay: float, seconds: float
    ) -> None:
        super().__init__(settings)
        self._application = application
        self._delay = delay
        self._seconds = seconds
        self.phase = Phase.SERVING

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal (uvicorn's name)."""
        self.phase = Phase.DRAINING if self.phase is Phase.SERVING else Phase.HURRIED
        self._application.readiness.is_draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        delay = 0.0 if self.phase is Phase.HURRIED else self._delay
        asyncio.get_running_loop().call_later(delay, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.should_exit = True  # `main_loop` checks it each tick, and calls `shutdown`.
        if self.started:
            for server in self.servers:
                server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, up to the timeout."""
        self._stop_accepting()
        for one in sockets or []:
            one.close()
        deadline = asyncio.get_running_loop().time() + self._seconds
        await self._wait(IDLE_SECONDS)
        for connection in self._connections():
            connection.shutdown()
        await self._wait(deadline - asyncio.get_running_loop().time())
        for connection in self._connections():
            try:
                connection.end_for_shutdown()
            except Exception:  # the others must end, and the lifespan with them
                logger.exception("a connection could not be ended")
        self.phase = Phase.ENDING
        await self._wait(FLUSH_SECONDS)
        for connection in self._connections():
            connection.transport.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        await self.lifespan.shutdown()

    async def _wait(self, seconds: float) -> None:
        """Wait until no connection is left, a second signal arrives, or the timeout passes."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        state = self.server_state
        # Polls, because uvicorn does not notify when a connection ends.
        while (  # noqa: ASYNC110  see above
            (state.connections or state.tasks)
            and self.phase is not Phase.HURRIED
            and loop.time() < until
        ):
            await asyncio.sleep(POLL_SECONDS)

    def _connections(self) -> list[ClientProtocol]:
        return [cast("ClientProtocol", one) for one in self.server_state.connections]
