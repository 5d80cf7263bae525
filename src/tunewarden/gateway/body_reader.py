"""`python -m tunewarden.gateway.body_reader FD PARENT`: reads long request bodies for one gateway worker.

Parsing a body of megabytes holds the GIL for the whole call, on any thread. A separate process does it, so
that the worker's event loop is not blocked. Bodies are not kept.

Frames in both directions: a length of 8 bytes, then that many bytes. In: a body. Out: its head (JSON), then its rest.
"""

import socket
import struct
import sys
from typing import Any

import msgspec

from tunewarden import processes
from tunewarden.errors import Error
from tunewarden.gateway.inference_request import InferenceRequest

LENGTH = struct.Struct(">Q")
READ_BYTES = 1024 * 1024


def main(descriptor: str, parent: str) -> None:
    """Parse bodies until the worker ends."""
    processes.die_with(int(parent))
    processes.keep_secrets_in_memory()
    with socket.socket(fileno=int(descriptor)) as worker:
        while (body := receive(worker)) is not None:
            head, rest = answer(body)
            send(worker, msgspec.json.encode(head))
            send(worker, rest)


def answer(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the fields that the gateway reads, or an error, and the body's other fields as a JSON object."""
    try:
        request, rest = InferenceRequest.taken_apart(body)
    except Error as error:
        return {"kind": error.kind.value, "message": error.message, "param": error.param}, b""
    return {
        "model": request.model,
        "is_stream": request.is_stream,
        "options": request.options,
        "store": request.store,
        "output_max": request.output_max,
        "drawn": request.draw(),
    }, rest


def send(other: socket.socket, data: bytes) -> None:
    """Send one message."""
    other.sendall(LENGTH.pack(len(data)))
    other.sendall(data)


def receive(other: socket.socket) -> bytes | None:
    """Return one message; None at the end of the stream."""
    length = _exactly(other, LENGTH.size)
    return None if length is None else _exactly(other, LENGTH.unpack(length)[0])


def _exactly(other: socket.socket, size: int) -> bytes | None:
    pieces, left = [], size
    while left:
        piece = other.recv(min(left, READ_BYTES))
        if not piece:
            return None
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


if __name__ == "__main__":
    main(*sys.argv[1:])
