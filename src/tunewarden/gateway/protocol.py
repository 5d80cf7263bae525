"""uvicorn's HTTP protocol, with a fast path for the inference routes, and with limits.

A request on one of `inference.ROUTES` becomes an `Exchange`, which runs in socket callbacks and takes the
place of uvicorn's RequestResponseCycle. Everything else becomes an ASGI task.

Timeouts: the states in `arrival.py`. What each callback does:

    `data_received`       a repeated head -> an exchange at once; else the parser, which calls
      `on_headers_complete`   a new exchange or cycle; it runs, or queues behind the running one (PIPELINE_MAX)
      `on_body`, `on_message_complete`   passed to it; an exchange advances
    the response is complete  the next request of the pipeline runs, or the connection waits for one
    a parse error         earlier requests are answered, then an error is sent, then the connection closes

Fields: `cycle` is the arriving request, `running` the one being answered, `exchange` is `running` if it is an
exchange, `pipeline` those in between. All of it runs on the worker's event loop.

How a connection ends: `protocol_ending.py`.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tunewarden import problems
from tunewarden.errors import Error, Kind
from tunewarden.gateway.arrival import BODY, END, HEAD, NOTHING, REQUEST, Arrival
from tunewarden.gateway.connection import ClientConnection
from tunewarden.gateway.cycle import Cycle, Flow, new_cycle
from tunewarden.gateway.exchange import Exchange
from tunewarden.gateway.exchanges import Exchanges
from tunewarden.gateway.inference import ROUTES
from tunewarden.gateway.parsing import RequestParser
from tunewarden.gateway.protocol_ending import EndingProtocol
from tunewarden.gateway.worker import Worker
from tunewarden.ids import Prefix, mint

# Pipelined requests that may wait on one connection; reading pauses beyond them.
PIPELINE_MAX = 16
HELD_BYTES_MAX = 128 * 1024
# A read that may hold more requests than that is parsed in pieces of this size, with few requests in each.
PIECE_BYTES = 512
HEAD_END = b"\r\n\r\n"
PATHS = {path.encode(): path for path in ROUTES}


class ClientProtocol(EndingProtocol):
    """HTTP/1.1 with httptools, in uvicorn."""

    is_flooded = False  # One read may have held more requests than the pipeline takes.
    worker: Worker
    exchanges: Exchanges

    # What the event loop calls:

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn declares asyncio.Transport, but as its own type
        """Register the connection, or refuse it beyond the limits."""
        super().connection_made(transport)
        self.worker = cast("Worker", self.config.app)
        self.flow = Flow(transport)
        self.peer = ClientConnection(transport, self.loop, self.worker.flushes)
        self.parser = RequestParser(self)
        self.arrival = Arrival(self.loop.time)
        self.exchanges = Exchanges(
            self.worker, self.peer, self.server_state, self._exchange_is_over
        )
        try:
            self.worker.connections.add(self)
        except Error as error:
            self.peer.write(problems.last_answer(error, mint(Prefix.REQUEST)))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify all requests of the connection."""
        exchange, self.exchange = self.exchange, None
        for cycle in (self.running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        if exchange is not None:
            exchange.lost()
        self.cycle = self.running = None
        self.pipeline.clear()
        self.held = b""
        super().connection_lost(exc)
        self.worker.connections.discard(self)
        self.peer.lost()

    def data_received(self, data: bytes) -> None:
        """Restart the idle timeout, and parse."""
        waiting = self.arrival.waiting
        if waiting is REQUEST:
            if self.running is None:
                repeated = self.exchanges.repeated(data)
                if repeated is not None:
                    self.arrival.waiting = NOTHING
                    self.running = self.exchange = repeated
                    self._advance()
                    return
        elif waiting is END:
            if self.arrival.drop(len(data)):
                self.transport.close()
            return
        self._take(data)

    def pause_writing(self) -> None:
        """Pause reading from the engine: back-pressure by a slow client."""
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """Resume reading from the engine."""
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.resume()
        if self.flow.is_held and not self.pipeline:
            self._read_on()

    # What the parser calls:

    def on_message_begin(self) -> None:
        """Start the timeout of a head."""
        self.exchanges.forget()
        # Else the head begins with the first byte of a read, which `_take` has noted.
        if self.arrival.waiting is not HEAD:
            self._wait_for_head(b"")

    def on_headers_complete(self) -> None:
        """Route: inference POSTs to an `Exchange`, everything else to ASGI."""
        self.arrival.begin(BODY)
        parser = self.parser
        path = PATHS.get(parser.path)
        if path is None or parser.method != b"POST":
            self.exchanges.first_bytes = b""
            cycle: Cycle | Exchange = self._cycle()
        else:
            cycle = self.exchanges.parsed(path, parser, may_repeat=self.running is None)
        parser.forget()
        self.cycle = cycle
        if self.running is None:
            self._start(cycle)
        else:
            self.flow.hold()
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) > PIPELINE_MAX:
                raise _too_many_requests()

    def on_body(self, body: bytes) -> None:
        """Pass on."""
        self.arrival.add_to_body(len(body))
        cycle = self.cycle
        assert cycle is not None, "its head was complete"
        cycle.add(body)

    def on_message_complete(self) -> None:
        """Pass on."""
        cycle, self.cycle = self.cycle, None
        assert cycle is not None, "its head was complete"
        self.arrival.waiting = NOTHING
        if not isinstance(cycle, Exchange):
            cycle.end()
            return
        cycle.complete()
        if cycle is not self.exchange:
            return
        if self.is_flooded:
            # Let other connections run between two requests.
            self.loop.call_soon(self._advance_if, cycle)
        else:
            self._advance()

    # What uvicorn calls:

    def on_response_complete(self) -> None:
        """Start the next request. `Connections` closes connections that stay idle."""
        self.server_state.total_requests += 1
        self.running = None
        if self.transport.is_closing() or (self.arrival.waiting is END and self.failure is None):
            return
        if self.pipeline:
            following = self.running = self.pipeline.pop()[0]
            if not self.pipeline:
                self._read_on()  # First, so that a body already received is parsed.
            self._start(following)
            return
        if self.arrival.waiting is NOTHING:
            self.arrival.wait_for(REQUEST)
            if not self.flow.read_paused and not self.flow.write_paused:
                return
        self._read_on()

    # Reading:

    def _wait_for_head(self, first_bytes: bytes) -> None:
        self.arrival.wait_for(HEAD)
        self.exchanges.first_bytes = first_bytes

    def _take(self, data: bytes) -> None:
        """Parse a read, or as much of it as the pipeline has room for."""
        if self.arrival.waiting is REQUEST:
            self._wait_for_head(data)
        elif self.arrival.waiting is BODY:
            self.arrival.received()
        try:
            self.is_flooded = len(data) > PIECE_BYTES and data.count(HEAD_END) > PIPELINE_MAX
            if not self.is_flooded:
                self.parser.feed(data)
            else:
                self._take_in_pieces(memoryview(data))
        except Error as error:
            # Drop the traceback: its frames form a reference cycle that holds the read.
            error.__cause__ = error.__context__ = None
            self._fail(error.with_traceback(None))
        else:
            if self.arrival.waiting is BODY and not self.held:
                self._advance()

    def _take_in_pieces(self, data: memoryview) -> None:
        for begin in range(0, len(data), PIECE_BYTES):
            if self.pipeline:
                if len(data) - begin > HELD_BYTES_MAX:
                    raise _too_many_requests()
                self.held = bytes(data[begin:])
                return
            self.parser.feed(data[begin : begin + PIECE_BYTES])

    def _read_on(self) -> None:
        """Read what follows the running request."""
        if self.failure is not None:
            if self.running is None:
                self._close_with(self.failure)
        elif self.flow.write_paused:
            self.flow.hold()  # Else output for a client that does not read grows without bound.
        elif self.held:
            self.loop.call_soon(self._take_held)
        else:
            self.flow.release()

    def _take_held(self) -> None:
        held, self.held = self.held, b""
        if held and not self.transport.is_closing():
            self._take(held)
            if not self.pipeline:
                self._read_on()

    # Answering:

    def _cycle(self) -> Cycle:
        self.peer.may_close()  # From here on only unsent bytes count.
        return new_cycle(self, self.parser, self.peer, self._end)

    def _start(self, cycle: Cycle | Exchange) -> None:
        self.running = cycle
        if isinstance(cycle, Exchange):
            self.exchange = cycle
            # Not directly: a thousand refused requests in one read would recurse a thousand frames deep.
            self.loop.call_soon(self._advance_if, cycle)
        else:
            self._start_asgi_task(cast("RequestResponseCycle", cycle), self.app)

    def _advance(self) -> None:
        if self.exchange is not None:
            self.exchange.advance()

    def _advance_if(self, exchange: Exchange) -> None:
        """Advance the exchange if it is still the running one: a scheduled call must not advance its successor."""
        if exchange is self.exchange:
            self._advance()

    def _exchange_is_over(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None and not exchange.keep_alive:
            self._end()
        self.on_response_complete()


def _too_many_requests() -> Error:
    said = f"Too many pipelined requests on one connection (limit {PIPELINE_MAX})."
    return Error(Kind.RATE_LIMITED, said, code="too_many_pipelined_requests")
