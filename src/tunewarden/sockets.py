"""Direct writes to a transport's socket, and how much of the output is unsent or unacknowledged.

uvloop writes at the end of a loop iteration; here the data goes to the kernel at once, and the transport gets only what
the kernel does not accept. So the caller knows immediately whether output is buffered.
"""

import asyncio
import fcntl
import os
import socket
import struct
import sys

# linux/sockios.h: bytes in a TCP socket's send queue that are unsent (NSD), and unacknowledged (sent or not).
SIOCOUTQNSD = 0x894B
SIOCOUTQ = 0x5411
NOTHING = b"\0\0\0\0"


def descriptor_of(transport: asyncio.BaseTransport) -> int:
    """Return a transport's descriptor, valid until the connection is lost; then it may be reused."""
    return int(transport.get_extra_info("socket").fileno())


def process_behind(transport: asyncio.BaseTransport) -> int:
    """Return the pid of a unix socket's peer (SO_PEERCRED, unix(7)); 0 for other sockets."""
    found = transport.get_extra_info("socket")
    if found.family != socket.AF_UNIX:
        return 0
    credentials = found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def write(transport: asyncio.Transport, descriptor: int, data: bytes) -> None:
    """Write to an open connection; the transport buffers what the kernel does not accept."""
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
    """Return the number of bytes in the kernel's send queue that were never sent."""
    return int.from_bytes(fcntl.ioctl(descriptor, SIOCOUTQNSD, NOTHING), sys.byteorder)


def unacknowledged(descriptor: int) -> int:
    """Return the number of bytes in the send queue that are unacknowledged: the kernel may retransmit them."""
    return int.from_bytes(fcntl.ioctl(descriptor, SIOCOUTQ, NOTHING), sys.byteorder)


def set_dropping(descriptor: int, *, drops: bool) -> None:
    """Set or clear SO_LINGER 0: closing, even by SIGKILL, discards unsent bytes and sends RST."""
    # uvloop's socket objects have no setsockopt.
    same = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor)
    try:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", drops, 0))
    finally:
        same.detach()
