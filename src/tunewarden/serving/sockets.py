"""Writing to a transport's socket without the event loop's detour, and knowing what has left.

uvloop writes at the end of its turn; here the kernel is asked at once, and the transport gets only what
the kernel does not take. So whoever wrote knows in the same breath whether anything still waits.
"""

import asyncio
import fcntl
import os
import socket
import struct
import sys

SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes in a TCP socket's queue that were not sent yet
NOTHING = b"\0\0\0\0"


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """Return a transport's descriptor: its own until the connection is lost, then maybe another's."""
    return int(transport.get_extra_info("socket").fileno())


def write(transport: asyncio.Transport, descriptor: int, data: bytes) -> None:
    """Write to a connection that was not lost; what finds no room waits in the transport."""
    if not transport.get_write_buffer_size() and not transport.is_closing():
        try:
            sent = os.write(descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            transport.abort()
            return
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)


def unsent(descriptor: int) -> int:
    """Return how many bytes wait in the kernel that have not been sent to the other end."""
    return int.from_bytes(fcntl.ioctl(descriptor, SIOCOUTQNSD, NOTHING), sys.byteorder)


def set_dropping(descriptor: int, *, drops: bool) -> None:
    """Make closing drop what was not sent (RST), also when this process is killed; or no longer."""
    # uvloop's sockets set no options.
    same = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
    try:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", drops, 0))
    finally:
        same.detach()
