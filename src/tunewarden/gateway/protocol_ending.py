"""How a connection ends: by a timeout, a parse error, an error that belongs to no request, or shutdown.

After a parse error earlier requests are answered first, then the error, then the connection closes: the next request's
start is unknown. Timeouts: the states in `arrival.py`.
"""

from collections import deque

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tunewarden import problems
from tunewarden.errors import Error
from tunewarden.gateway.arrival import BODY, END, HEAD, Arrival
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.cycle import Cycle, Flow
from tunewarden.gateway.exchange import Exchange
from tunewarden.gateway.inference import shutting_down, too_slow
from tunewarden.gateway.parsing import RequestParser
from tunewarden.ids import Prefix, mint


class EndingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with the fields of our own; `ClientProtocol` is its only subclass."""

    # The arriving request, the one being answered, and those in between.
    cycle: Cycle | Exchange | None  # type: ignore[assignment]  # narrower than uvicorn's, or our own in its place
    running: Cycle | Exchange | None = None
    exchange: Exchange | None = None  # `running`, if it is one
    pipeline: deque[tuple[Cycle | Exchange, ASGI3Application]]  # type: ignore[assignment]  # narrower than uvicorn's, or our own in its place
    # Input that is not parsed yet, and the parse error after the last request.
    held = b""
    failure: Error | None = None
    peer: ClientConnection
    parser: RequestParser  # type: ignore[assignment]  # narrower than uvicorn's, or our own in its place
    flow: Flow
    arrival: Arrival

    # What uvicorn and the drain call:

    def shutdown(self) -> None:
        """Shut down gracefully: a response that a slow client is still reading is not lost."""
        if self.running is not None:
            self.running.keep_alive = False
        elif not self.peer.may_close():
            self.peer.flushes.wait(self.peer.may_close, self.shutdown)
        elif self.arrival.waiting is not HEAD:  # Else it is answered first, then closed.
            self.transport.close()

    def end_for_shutdown(self) -> None:
        """End requests at the drain timeout: with an error where one can be sent."""
        if self.exchange is not None:
            self.exchange.end_for_shutdown()
        elif self.running is not None:
            self._break(self.running, shutting_down())
        else:
            self.transport.close()

    # What `Connections` calls, each second:

    def end_if_overdue(self, now: float, *, client_seconds: float, engine_seconds: float) -> None:
        """Apply the timeouts: for a client that sends or reads slowly, and for a silent engine."""
        arrival = self.arrival
        if self.peer.is_stuck(now, client_seconds):
            self.peer.drop()
        elif arrival.is_idle(now, self.timeout_keep_alive):
            if self.peer.may_close():
                self.transport.close()
        elif arrival.has_lingered(now, client_seconds):
            if self.running is None:
                self.transport.close()
        elif arrival.is_slow(now, client_seconds, is_read=not self.flow.read_paused):
            self._end_slow()
        if self.exchange is not None:
            self.exchange.end_if_overdue(now, engine_seconds)

    def _end_slow(self) -> None:
        if self.arrival.waiting is HEAD:
            if self.running is None:
                self._close_with(too_slow())
        elif self.exchange is not None:
            self.exchange.end_if_slow()
        elif not self.flow.read_paused:  # else the application is the one not reading
            self.transport.close()

    def _fail(self, error: Error) -> None:
        """Answer the pending requests, then the error, then close: the next request's start is unknown."""
        broken = self.cycle if self.arrival.waiting is BODY else None
        self.cycle = None
        self.parser.stop()
        self.held = b""
        self.arrival.begin(END)
        if broken is not None and broken is self.running:
            self._break(broken, error)
            return
        if broken is not None:
            self.pipeline.remove((broken, self.app))
        self.failure = error
        if self.running is None:
            self._close_with(error)

    def _break(self, cycle: Cycle | Exchange, error: Error) -> None:
        """Answer a request with an error, if its response has not begun, and close."""
        cycle.keep_alive = False
        if isinstance(cycle, Exchange):
            cycle.refuse(error)
            return
        self.running = None
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self._end()
        else:
            self._close_with(error)

    def _close_with(self, error: Error) -> None:
        """Send an error that belongs to no request, and close."""
        self.peer.write(problems.last_answer(error, mint(Prefix.REQUEST)))
        self.arrival.waiting = END
        self._end()

    def _end(self) -> None:
        """Close; if the client still sends, only after it had time to read the response."""
        if self.transport.is_closing():
            return
        self.parser.stop()
        self.pipeline.clear()
        self.cycle = self.running = self.failure = None
        self.held = b""
        self.arrival.begin(END)
        self.flow.release()
        self.transport.write_eof()
