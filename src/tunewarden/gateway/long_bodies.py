"""Parses long request bodies in a child process (body_reader.py), one at a time, first come, first served."""

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tunewarden import config
from tunewarden.errors import Error, Kind
from tunewarden.gateway import body_reader
from tunewarden.gateway.inference_request import InferenceRequest

# Shorter bodies are parsed on the event loop: a few milliseconds at worst.
LONG_BYTES = 128 * 1024
WAITING_MAX = 8  # per organization


class _Head(msgspec.Struct):
    model: str = ""
    is_stream: bool = False
    options: object = None
    store: object = None
    output_max: int | None = None
    drawn: int = 0
    kind: str | None = None
    message: str = ""
    param: str | None = None


_head = msgspec.json.Decoder(_Head)


class LongBodies:
    """One per worker. The child process is started with the first long body."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "long bodies")
        self._reader: _Reader | None = None
        self._waiting: Counter[str] = Counter()

    def read(self, organization: str, body: bytes) -> "asyncio.Future[InferenceRequest]":
        """Parse a body; return a future of the request. Raises Error(RATE_LIMITED); the future Error(INVALID)."""
        if self._waiting[organization] >= WAITING_MAX:
            raise Error(
                Kind.RATE_LIMITED,
                "Too many concurrent large requests. Please try again later.",
                retry_after_seconds=1,
            )
        self._waiting[organization] += 1
        reading = asyncio.get_running_loop().run_in_executor(self._thread, self._read, body)
        reading.add_done_callback(lambda _: self._ended(organization))
        return reading

    def close(self) -> None:
        """End the child process."""
        self._thread.shutdown()
        if self._reader is not None:
            self._reader.end()

    def _ended(self, organization: str) -> None:
        self._waiting[organization] -= 1
        if not self._waiting[organization]:
            del self._waiting[organization]

    def _read(self, body: bytes) -> InferenceRequest:
        reader = self._reader = self._reader or _Reader()
        try:
            body_reader.send(reader.socket, body)
            head, rest = body_reader.receive(reader.socket), body_reader.receive(reader.socket)
        except OSError:
            head = rest = None
        if head is None or rest is None:
            reader.end()
            # It died, perhaps because of this body: the next one gets a new process.
            self._reader = None
            raise Error(Kind.UNAVAILABLE, "The request could not be read.", retry_after_seconds=1)
        found = _head.decode(head)
        if found.kind is not None:
            raise Error(Kind(found.kind), found.message, param=found.param)
        return InferenceRequest.of_parts(
            found.model,
            rest,
            is_stream=found.is_stream,
            options=found.options,
            store=found.store,
            output_max=found.output_max,
            drawn=found.drawn,
        )


class _Reader:
    """The child process, and our end of its socket."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            number = str(theirs.fileno())
            command = [sys.executable, "-m", body_reader.__name__, number, str(os.getpid())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], env=config.child_environment()
            )

    def end(self) -> None:
        """End the process."""
        self.socket.close()
        self._process.kill()
        self._process.wait()
